//! Secret values: files of the state folder, one a version; `current` is the one in use.

use std::collections::BTreeMap;
use std::fs;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mlctl_core::item::Item;
use mlctl_core::local_protocol::{Layout, StateChange};
use mlctl_core::ports::{ErrorKind, OrchestratorError, Result};
use mlctl_core::secret::Secret;
use mlctl_core::system::Generate;
use serde::{Deserialize, Serialize};

use super::files;

/// The payload of a secret: how a value is made, never a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SecretPlan {
    pub(super) generate: Generate,
    /// The variable that a value may be given in.
    pub(super) env: Option<String>,
}

/// Returns the value that a secret is to have from now on: the one given from outside, else a fresh one where it has
/// none. None when it has the right one.
pub(super) fn fresh(
    layout: &Layout,
    name: &str,
    item: &Item,
    given: &BTreeMap<String, Secret>,
) -> Result<Option<Secret>> {
    let refused = |kind, reason: String| OrchestratorError::new(kind, "apply", item.id.to_string(), reason);
    let plan = SecretPlan::deserialize(&item.payload).map_err(|e| {
        refused(ErrorKind::Invalid, format!("it was not made by this target ({e}): deploy again"))
    })?;
    let current = read(layout, name)?;
    match (given.get(name), &current) {
        (Some(value), Some(known)) if value == known => Ok(None),
        (Some(value), _) => Ok(Some(value.clone())),
        (None, Some(_)) => Ok(None),
        (None, None) => {
            let made = make(plan.generate).map_err(|reason| refused(ErrorKind::Unavailable, reason))?;
            let value = made.ok_or_else(|| {
                let how = plan.env.map_or_else(
                    || "give it a `generate` or an `env`".to_owned(),
                    |variable| format!("set {variable} in the environment of mlctl"),
                );
                refused(ErrorKind::Invalid, format!("it has no value and none is made for it: {how}"))
            })?;
            Ok(Some(value))
        }
    }
}

/// Returns the value in use.
pub(super) fn read(layout: &Layout, name: &str) -> Result<Option<Secret>> {
    let path = layout.secret_value(name);
    match fs::read_to_string(&path) {
        Ok(value) => Ok(Some(Secret::new(value))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(files::failed("read", &path)(error)),
    }
}

/// Returns the number of a value's version, which is the next one, and the changes that write it and make it the one
/// in use; older versions stay.
pub(super) fn next_version(layout: &Layout, name: &str, value: &Secret) -> Result<(u32, Vec<StateChange>)> {
    let folder = layout.secret(name);
    let last = files::names(&folder)?.iter().filter_map(|n| n.parse::<u32>().ok()).max().unwrap_or_default();
    let version = last + 1;
    let path = |file: &str| format!("secrets/{name}/{file}");
    let changes = vec![
        StateChange::Write { path: path(&version.to_string()), content: value.expose().to_owned() },
        StateChange::Link { path: path("current"), to: version.to_string() },
    ];
    Ok((version, changes))
}

/// Makes a value; none for secrets that somebody has to give.
fn make(generate: Generate) -> Result<Option<Secret>, String> {
    let random = SystemRandom::new();
    let bytes = || {
        let mut bytes = [0_u8; 32];
        random.fill(&mut bytes).map(|()| bytes).map_err(|_| "the machine gives no random bytes".to_owned())
    };
    Ok(match generate {
        Generate::None => None,
        Generate::Token => Some(Secret::new(URL_SAFE_NO_PAD.encode(bytes()?))),
        Generate::Base64Of32 => Some(Secret::new(STANDARD.encode(bytes()?))),
        Generate::Ed25519Pem => {
            // Version 1, without the public key: version 2 (RFC 8410) is refused by many readers of PEM files.
            let key = Ed25519KeyPair::generate()
                .and_then(|pair| AsDer::<Pkcs8V1Der<'_>>::as_der(&pair))
                .map_err(|_| "the machine gives no random bytes".to_owned())?;
            Some(Secret::new(pem(key.as_ref())))
        }
    })
}

/// Wraps a PKCS#8 document as RFC 7468 says: lines of 64 characters.
fn pem(document: &[u8]) -> String {
    let text = STANDARD.encode(document);
    let mut lines = vec!["-----BEGIN PRIVATE KEY-----"];
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        lines.push(line);
        rest = after;
    }
    lines.push("-----END PRIVATE KEY-----\n");
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use mlctl_core::item::{Digest, ItemId, ItemKind, Tier};

    use super::*;

    fn item(generate: Generate, env: Option<&str>) -> Item {
        let plan = SecretPlan { generate, env: env.map(ToOwned::to_owned) };
        Item {
            id: ItemId::new(ItemKind::Secret, "key"),
            tier: Tier::Infrastructure,
            needs: Vec::new(),
            digest: Digest::of(b""),
            replicas: None,
            progress_deadline_ms: None,
            payload: serde_json::to_value(plan).unwrap(),
        }
    }

    #[test]
    fn a_value_is_made_once_and_a_given_one_is_a_new_version() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let ensure = |given: &BTreeMap<String, Secret>| {
            if let Some(value) = fresh(&layout, "key", &item(Generate::Token, None), given).unwrap() {
                let (_, changes) = next_version(&layout, "key", &value).unwrap();
                carry_out(folder.path(), &changes);
            }
            read(&layout, "key").unwrap().unwrap()
        };
        let made = ensure(&BTreeMap::new());
        assert_eq!(made.expose().len(), 43);
        assert_eq!(ensure(&BTreeMap::new()), made);
        let given = BTreeMap::from([("key".to_owned(), Secret::new("mine"))]);
        assert_eq!(ensure(&given).expose(), "mine");
        assert_eq!(ensure(&given).expose(), "mine");
        assert_eq!(ensure(&BTreeMap::new()).expose(), "mine");
        assert_eq!(files::names(&layout.secret("key")).unwrap(), ["1", "2", "current"]);
    }

    /// Does what the agent does.
    fn carry_out(root: &Path, changes: &[StateChange]) {
        for change in changes {
            let path = root.join(change.path());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let _ = fs::remove_file(&path);
            match change {
                StateChange::Write { content, .. } => fs::write(path, content).unwrap(),
                StateChange::Link { to, .. } => std::os::unix::fs::symlink(to, path).unwrap(),
                StateChange::Remove { .. } => {}
            }
        }
    }

    #[test]
    fn values_have_the_form_their_readers_expect() {
        let pem = make(Generate::Ed25519Pem).unwrap().unwrap();
        let body: String = pem.expose().lines().filter(|line| !line.starts_with('-')).collect();
        let document = STANDARD.decode(body).unwrap();
        Ed25519KeyPair::from_pkcs8(&document).unwrap();
        assert_eq!(document.len(), 48, "version 1: a version 2 document carries the public key as well");
        assert!(pem.expose().lines().all(|line| line.len() <= 64));
        let key = make(Generate::Base64Of32).unwrap().unwrap();
        assert_eq!(STANDARD.decode(key.expose()).unwrap().len(), 32);
        assert_ne!(make(Generate::Token).unwrap(), make(Generate::Token).unwrap());
    }

    #[test]
    fn a_secret_that_nobody_gives_says_who_could() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let error =
            fresh(&layout, "key", &item(Generate::None, Some("MY_KEY")), &BTreeMap::new()).unwrap_err();
        assert!(error.to_string().ends_with("set MY_KEY in the environment of mlctl"), "{error}");
    }
}
