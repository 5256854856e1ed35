# SPDX-License-Identifier: Apache-2.0
"""Success against distance: the simulated arm behind modelled networks, driven by us and by our peers."""
