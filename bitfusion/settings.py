# SPDX-License-Identifier: Apache-2.0
"""The settings: one table gives file keys, options, environment variables, defaults, validation.

Everything else about them (samples, help, `bitfusion config --show`) is checked against it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Union

from bitfusion import paths
from bitfusion.quantity import parse_duration, parse_size
from bitfusion.values import (
    parse_address,
    parse_addresses,
    parse_count,
    parse_encrypt,
    parse_host_memory,
    parse_lease,
    parse_patience,
    parse_ports,
    parse_silence,
    parse_software_gpus,
    parse_software_memory,
    parse_spare_workers,
    parse_store,
    parse_text,
    parse_token,
    parse_transport,
    parse_truth,
)


class Setting(NamedTuple):
    name: str  # section.key of the file
    parse: Callable[[str], object]
    default: Union[str, Callable[[], str]]  # as a file would say it
    value: str  # what help calls the value; "" for an option without one
    help: str
    option: str = ""
    environment: str = ""
    path: bool = False  # relative to the folder of the file that says it
    secret: bool = False


def parse_state_dir(text: str) -> str:
    return parse_text(text) or paths.state_folder()


# fmt: off
SETTINGS = (
    Setting("client.server_list", parse_addresses, "", "HOST:PORT,...",
            "use these servers (default: a private one)",
            "--server_list", "BITFUSION_SERVER_LIST"),
    Setting("client.transport", parse_transport, "auto", "auto|tcp|unix",
            "how calls travel (default: auto, the best)", "--transport", "BITFUSION_TRANSPORT"),
    Setting("client.driver", parse_text, "", "PATH",
            "let the private server load this libcuda.so.1", "--driver", "BITFUSION_DRIVER"),
    Setting("client.ca", parse_text, "", "FILE",
            "certificates of the servers' cluster: speak TLS, and to nobody else (default: '')",
            "", "BITFUSION_CA", path=True),
    Setting("client.token", parse_token, "", "NAME:SECRET",
            "who we are, to servers that ask", "", "BITFUSION_TOKEN", secret=True),
    Setting("client.encrypt", parse_encrypt, "auto", "auto|always|never",
            "encrypt calls and data (default: auto, as the server wants)",
            "", "BITFUSION_ENCRYPT"),
    Setting("client.timeout", parse_patience, "3s", "TIME",
            "how long to wait for a server's answer"),
    Setting("client.queue_timeout", parse_duration, "30m", "TIME",
            "wait so long in the queue (default: 30m)",
            "--timeout", "BITFUSION_TIMEOUT"),
    Setting("client.lease", parse_lease, "auto", "TIME|auto",
            "how long to try to reach a lost server again (default: auto, as it says)"),
    Setting("server.listen", parse_address, "127.0.0.1:56001", "HOST:PORT",
            "control plane's address (default: 127.0.0.1:56001)", "--listen"),
    Setting("server.data_ports", parse_ports, "55001-55100", "FIRST-LAST",
            "first free one carries calls (default: 55001-55100)", "--data_ports"),
    Setting("server.state_dir", parse_state_dir, paths.state_folder, "FOLDER",
            "keys, state (default for root: /var/lib/bitfusion)",
            "--state_dir", "BITFUSION_STATE_DIR", path=True),
    Setting("server.insecure", parse_truth, "false", "",
            "serve the network in clear text, and everybody", "--insecure"),
    Setting("server.encrypt", parse_encrypt, "auto", "auto|always|never",
            "encrypt calls and data (default: auto, as the client wants)"),
    Setting("server.driver", parse_text, "", "PATH",
            "load this libcuda.so.1 (default: the machine's)",
            "--driver", "BITFUSION_DRIVER"),
    Setting("server.spare_workers", parse_spare_workers, "1", "N",
            "workers kept ready (default: 1)", "--spare_workers"),
    Setting("server.worker_user", parse_text, "", "USER",
            "whom a root server's workers run as (default: bitfusion-worker, else nobody)"),
    Setting("server.host_memory", parse_host_memory, "25%", "SIZE|PERCENT",
            "this machine's memory that one session may hold (default: 25%; 0, no limit)"),
    Setting("cluster.store", parse_store, "sqlite", "sqlite|etcd://HOST:PORT,...",
            "where the cluster's state is kept"),
    Setting("cluster.store_ca", parse_text, "", "FILE",
            "who signed the certificates of etcds:// (default: '', whom the machine trusts)",
            path=True),
    Setting("cluster.store_cert", parse_text, "", "FILE",
            "certificate to show to etcds://, where it wants one", path=True),
    Setting("cluster.store_key", parse_text, "", "FILE", "key of that certificate", path=True),
    Setting("cluster.prefix", parse_text, "/bitfusion/", "TEXT",
            "what the cluster's keys in etcd begin with"),
    Setting("cluster.lease", parse_silence, "30s", "TIME",
            "how long a server or a client may be silent before it counts as gone"),
    Setting("cluster.forget", parse_patience, "10m", "TIME",
            "how long after that a server's claims are forgotten"),
    Setting("cluster.spread", parse_truth, "false", "",
            "spread sessions over GPUs rather than keep whole GPUs free"),
    Setting("limits.gpus", parse_count, "0", "N",
            "GPUs of one client at once (default: 0, no limit)"),
    Setting("limits.memory", parse_size, "0", "SIZE",
            "memory of one client in all its sessions (default: 0, no limit)"),
    Setting("limits.time", parse_duration, "0s", "TIME",
            "how long a session may last (default: 0s, no limit)"),
    Setting("limits.idle", parse_duration, "0s", "TIME",
            "how long a session may do nothing (default: 0s, no limit)"),
    Setting("limits.queue", parse_count, "256", "N",
            "requests of one client that may wait in all (default: 256; 0, no limit)"),
    Setting("softgpu.gpus", parse_software_gpus, "auto", "N",
            "number of software GPUs (default: 1)", "--gpus", "BITFUSION_SOFTGPU_GPUS"),
    Setting("softgpu.memory", parse_software_memory, "4G", "SIZE",
            "memory of each, such as 512M (default: 4G)", "--memory", "BITFUSION_SOFTGPU_MEMORY"),
)
# fmt: on
BY_NAME = {setting.name: setting for setting in SETTINGS}
CLIENT_SECTIONS = ("client", "softgpu")
SERVER_SECTIONS = ("server", "cluster", "limits", "softgpu")
