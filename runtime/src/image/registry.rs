//! Registries, over the distribution API.

/// How to introduce oneself to a registry (CRI's AuthConfig).
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Auth {
    #[default]
    Anonymous,
    Basic {
        username: String,
        password: String,
    },
    /// A refresh token, exchanged for access tokens.
    Identity(String),
    /// A bearer token, sent as it is.
    Registry(String),
}

#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("pulling is not there yet")]
    NotThere,
}

impl RegistryError {
    pub fn code(&self) -> tonic::Code {
        tonic::Code::Unimplemented
    }
}
