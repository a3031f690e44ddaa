use gantry_kube::Status;

/// Why a call did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The server answered, and refused.
    #[error("{call}")]
    Api {
        call: String,
        #[source]
        status: Box<Status>,
    },
    /// No answer came.
    #[error("{call}: the API server cannot be reached")]
    Transport {
        call: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer came that is not what the API promises.
    #[error("{call}: the answer is not understood: {why}")]
    Answer { call: String, why: String },
}

impl ClientError {
    pub fn status(&self) -> Option<&Status> {
        match self {
            ClientError::Api { status, .. } => Some(status),
            ClientError::Transport { .. } | ClientError::Answer { .. } => None,
        }
    }

    fn is(&self, code: u16, reason: &str) -> bool {
        self.status().is_some_and(|s| s.code == code && (reason.is_empty() || s.reason == reason))
    }

    pub fn is_not_found(&self) -> bool {
        self.is(404, "")
    }

    pub fn is_conflict(&self) -> bool {
        self.is(409, "Conflict")
    }

    pub fn is_already_exists(&self) -> bool {
        self.is(409, "AlreadyExists")
    }

    /// The watch's or page's revision is no longer kept: list again.
    pub fn is_gone(&self) -> bool {
        self.is(410, "")
    }

    /// Whether the same call may succeed later without a change of ours.
    pub fn retryable(&self) -> bool {
        match self {
            ClientError::Api { status, .. } => status.code >= 500 || status.code == 429 || self.is_conflict(),
            ClientError::Transport { .. } => true,
            ClientError::Answer { .. } => false,
        }
    }
}
