# SPDX-License-Identifier: Apache-2.0
"""The server's end of the command stream: a C core that calls the driver, and its shell."""
