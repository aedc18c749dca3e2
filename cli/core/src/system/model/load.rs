//! Load profiles: which requests, how many, and what counts as good.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::service::Method;
use crate::system::units::{Expect, Rate, Threshold, TimeSpan};

/// Requests sent at a fixed rate, open loop, with what comes before and after.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadProfile {
    /// Requests started per time, whatever the answers do.
    pub rate: Rate,
    /// Time that is measured.
    pub duration: TimeSpan,
    /// Time before it that is not measured.
    pub warmup: TimeSpan,
    /// Connections kept open at most; at least 1.
    pub connections: u32,
    /// Time after which a request counts as an error.
    pub timeout: TimeSpan,
    /// Headers of every request of the mix and of the teardown; values may hold templates.
    pub headers: IndexMap<String, String>,
    /// Requests sent once, in order, before the load. One that fails ends the load before it begins.
    pub setup: Vec<LoadRequest>,
    /// What is sent: each entry by its weight.
    pub mix: Vec<MixEntry>,
    /// Requests sent once, in order, after the load, whatever it said.
    pub teardown: Vec<LoadRequest>,
    /// What has to hold besides the KPIs.
    pub thresholds: Vec<Threshold>,
}

/// One request of setup or teardown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadRequest {
    /// Name in reports.
    pub name: String,
    /// Method and path; the path may hold templates.
    #[serde(flatten)]
    pub call: Call,
    /// JSON body; strings in it may hold templates.
    pub body: Option<serde_json::Value>,
    /// Headers besides the profile's; values may hold templates.
    pub headers: IndexMap<String, String>,
    /// Statuses that count as good.
    pub expect: Expect,
    /// What to keep of the answer: variable name to JSON pointer.
    pub save: IndexMap<String, String>,
}

/// One kind of request of the mix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MixEntry {
    /// Name in reports and in thresholds.
    pub name: String,
    /// Share of the requests, relative to the other weights; at least 1.
    pub weight: u32,
    /// Method and path; the path may hold templates.
    #[serde(flatten)]
    pub call: Call,
    /// JSON body; strings in it may hold templates.
    pub body: Option<serde_json::Value>,
    /// Headers besides the profile's; values may hold templates.
    pub headers: IndexMap<String, String>,
    /// Statuses that count as good.
    pub expect: Expect,
}

/// Method and path of a request, written as `get: /path`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Call {
    /// `get: PATH`
    Get(String),
    /// `post: PATH`
    Post(String),
    /// `put: PATH`
    Put(String),
    /// `patch: PATH`
    Patch(String),
    /// `delete: PATH`
    Delete(String),
}

impl Call {
    /// Returns the method.
    pub fn method(&self) -> Method {
        match self {
            Self::Get(_) => Method::Get,
            Self::Post(_) => Method::Post,
            Self::Put(_) => Method::Put,
            Self::Patch(_) => Method::Patch,
            Self::Delete(_) => Method::Delete,
        }
    }

    /// Returns the path with its templates.
    pub fn path(&self) -> &str {
        match self {
            Self::Get(path) | Self::Post(path) | Self::Put(path) | Self::Patch(path) | Self::Delete(path) => {
                path
            }
        }
    }
}
