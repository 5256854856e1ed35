# SPDX-License-Identifier: Apache-2.0
"""More than one machine: the policy server on Ray Serve. Ray places, scales and replaces; the rest stays ours.

    robots ── HAProxy ── ingress replica ──┬── policy replica     application `policy`: replaced by a rollout
              (Ray's)    application        ├── policy replica     decodes, plans batches, infers
                         `ingress`: stays   └── policy replica

Nothing here imports Ray before it is asked to (`apps`, `calls`, `deployments`, `router`, `running` do).
"""
