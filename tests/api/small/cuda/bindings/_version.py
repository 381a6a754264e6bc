# SPDX-License-Identifier: Apache-2.0
__version__ = version = "13.5.0"
