# SPDX-License-Identifier: Apache-2.0
"""Action chunks in time: which row for which tick, when to ask for more, what when there is nothing. Pure."""
