//! Which flows are meant.

use serde::{Deserialize, Serialize};

use crate::wire::Prefix;

/// Which flows are meant: those that fit every part. No part: all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowFilter {
    /// Name of the service.
    pub service: Option<String>,
    /// `BACKEND` or `SERVICE/BACKEND`.
    pub backend: Option<String>,
    /// Where the client is.
    pub client: Option<Prefix>,
    /// State as listed.
    pub state: Option<String>,
}
