# SPDX-License-Identifier: Apache-2.0
"""The PTX front end: containers, parser, linker, cache and the helper process of the driver."""
