# SPDX-License-Identifier: Apache-2.0
"""bitfusion server: serve this machine's GPUs to the network."""

from __future__ import annotations

from bitfusion import config, inventory, log
from bitfusion.options import Option, Parsed, refuse_words

USAGE = "[--config FILE] [options]"
ABOUT = """\
Serve this machine's GPUs, or software GPUs where it has none, until SIGTERM. Connections are not
encrypted and clients are not asked who they are: listen on loopback, or on a network that you
trust."""
OPTIONS = (
    Option(("--config",), "FILE", "settings (default: /etc/bitfusion/server.toml)"),
    config.option("server.listen"),
    config.option("server.data_ports"),
    config.option("server.driver"),
    config.option("server.spare_workers"),
    config.option("server.state_dir"),
    Option(("-q", "--quiet"), "", "log warnings and errors only"),
)
EXAMPLES = """\
examples:
  bitfusion server --config /etc/bitfusion/server.toml
  BITFUSION_SOFTGPU_GPUS=4 bitfusion server --listen 127.0.0.1:56001"""


def run(parsed: Parsed) -> int:
    refuse_words(parsed)
    settings = config.load_server(parsed)
    log.set_level(log.WARN if parsed.has("quiet") else log.INFO)
    from bitfusion.server import public

    found = inventory.find(
        settings.text("server.driver"),
        settings.number("softgpu.gpus") or 1,
        settings.number("softgpu.memory"),
    )
    public.serve(found, settings)
    return 0
