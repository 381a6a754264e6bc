# SPDX-License-Identifier: Apache-2.0
"""The server's end of the command stream: a C core that makes the driver calls, and its ctypes shell."""
