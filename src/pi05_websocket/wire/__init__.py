# SPDX-License-Identifier: Apache-2.0
"""OpenPI's wire: bytes and meaning (`codec`), who says what when (`protocol`). Pure."""
