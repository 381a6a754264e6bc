# SPDX-License-Identifier: Apache-2.0
"""bitfusion server: serve this machine's GPUs to the network."""

from __future__ import annotations

from bitfusion import config, inventory, log
from bitfusion.commands.server_keys import INIT, INVITE
from bitfusion.commands.server_state import DRAIN, STOP, UNDRAIN
from bitfusion.options import Option, Parsed, refuse_words

USAGE = "[init|invite|drain|undrain|stop] [--config FILE] [options]"
ABOUT = """\
Serve this machine's GPUs, or software GPUs where it has none, until SIGTERM, which
its sessions survive for the next server, or SIGINT, which ends them. With keys (made by 'bitfusion
server init'), by TLS to clients with a token; else in clear text, to loopback only or with
--insecure."""
OPTIONS = (
    Option(("--config",), "FILE", "settings (default: /etc/bitfusion/server.toml)"),
    config.option("server.listen"),
    config.option("server.data_ports"),
    config.option("server.state_dir"),
    config.option("server.insecure"),
    config.option("server.driver"),
    config.option("server.spare_workers"),
    Option(("-q", "--quiet"), "", "log warnings and errors only"),
)
EXAMPLES = """\
examples:
  bitfusion server init --name lab
  bitfusion server --listen 0.0.0.0:56001
  BITFUSION_SOFTGPU_GPUS=4 bitfusion server --listen 127.0.0.1:56001"""

SUBCOMMANDS = {
    "init": INIT,
    "invite": INVITE,
    "drain": DRAIN,
    "undrain": UNDRAIN,
    "stop": STOP,
}


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
