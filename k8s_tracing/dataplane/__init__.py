# SPDX-License-Identifier: Apache-2.0
"""What lies between the services: the ingress, the Service, the container, as spans of the same trace."""
