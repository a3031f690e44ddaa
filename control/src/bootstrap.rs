//! What a cluster has before anyone asks: its CA, its credentials, its namespaces, roles and services.
