//! What the suites on the fixture `knobs` share: its ports, and what its status should say.

use serde_json::Value;

use crate::Sandbox;

/// Port of the fixture's public service, as its file names it.
pub const FRONT: u16 = 4000;
/// Port of the service behind it.
pub const BACK: u16 = 4001;

impl Sandbox {
    /// Returns a sandbox with the two services of one program, `tests/src/bin/knobs/`, that does as it is told.
    #[must_use]
    pub fn of_knobs(program: &str) -> Self {
        Self::of_fixture("knobs", &[("knobs", program)])
    }

    /// Deploys its first release, which passes verification.
    ///
    /// # Panics
    /// When it does not.
    pub async fn deployed(self) -> Self {
        self.mlctl(&["deploy"]).await.ends(0);
        self
    }
}

/// Returns the line of an item of `mlctl status -o json`.
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn item<'a>(status: &'a Value, name: &str) -> &'a Value {
    let items = status["items"].as_array().unwrap();
    let named = |item: &&Value| item["item"].as_str().is_some_and(|id| id.ends_with(&format!("/{name}")));
    items.iter().find(named).unwrap_or_else(|| panic!("no {name} in {status:#}"))
}

/// Asserts that every item runs as the release says.
///
/// # Panics
/// When one does not.
#[track_caller]
pub fn assert_settled(status: &Value) {
    for item in status["items"].as_array().unwrap() {
        assert_eq!((&item["status"], &item["drift"]), (&"current".into(), &false.into()), "{status:#}");
    }
}

/// Says whether the long form of a case is wanted (`make test-full`).
#[must_use]
pub fn at_full_length() -> bool {
    std::env::var("MLCTL_TEST_LENGTH").is_ok_and(|length| length == "full")
}
