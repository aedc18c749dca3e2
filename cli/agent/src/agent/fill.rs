//! Placeholders of a spec, filled in for one replica.

use std::path::PathBuf;

use mlctl_core::item::Digest;
use mlctl_core::local_protocol::{FileSpec, Layout, WorkloadSpec};

/// What the placeholders of one replica stand for.
pub(super) struct Values<'a> {
    pub(super) layout: &'a Layout,
    pub(super) spec: &'a WorkloadSpec,
    pub(super) port: Option<u16>,
    pub(super) metrics_port: Option<u16>,
}

impl Values<'_> {
    /// Replaces `{port}`, `{metrics_port}`, `{data}`, `{artifact}`, `{artifact_folder}` and `{file:NAME}`; `{{` and `}}` are braces that are
    /// meant, as in `mlctl.yaml`. A name we do not know is left alone.
    pub(super) fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            filled.push_str(&rest[..at]);
            rest = &rest[at..];
            let brace = &rest[..1];
            if rest[1..].starts_with(brace) {
                filled.push_str(brace);
                rest = &rest[2..];
            } else if let Some((value, length)) = self.placeholder(rest) {
                filled.push_str(&value);
                rest = &rest[length..];
            } else {
                filled.push_str(brace);
                rest = &rest[1..];
            }
        }
        filled.push_str(rest);
        filled
    }

    /// Returns the value of the placeholder that a text begins with, and the placeholder's length.
    fn placeholder(&self, text: &str) -> Option<(String, usize)> {
        let inner = text.strip_prefix('{')?;
        let close = inner.find('}')?;
        Some((self.value(&inner[..close])?, close + 2))
    }

    fn value(&self, name: &str) -> Option<String> {
        match name {
            "port" => self.port.map(|p| p.to_string()),
            "metrics_port" => self.metrics_port.map(|p| p.to_string()),
            "data" => Some(self.layout.data().display().to_string()),
            "artifact" => Some(self.layout.artifact(self.spec.artifact.as_ref()?).display().to_string()),
            "artifact_folder" => {
                let path = self.layout.artifact(self.spec.artifact.as_ref()?);
                path.parent().map(|folder| folder.display().to_string())
            }
            _ => {
                let name = name.strip_prefix("file:")?;
                let file = self.spec.files.iter().find(|f| f.name == name)?;
                Some(file_path(self.layout, &self.spec.name, file).display().to_string())
            }
        }
    }
}

/// Returns where a file of a workload is: a live one at one place for all revisions, any other by its content, so
/// that a replica of an older revision keeps its own.
pub(super) fn file_path(layout: &Layout, service: &str, file: &FileSpec) -> PathBuf {
    let folder = layout.files(service);
    if file.live {
        folder.join(&file.name)
    } else {
        folder.join(Digest::of(file.content.as_bytes()).short()).join(&file.name)
    }
}

/// Says whether any text of a spec asks for a metrics port.
pub(super) fn wants_metrics_port(spec: &WorkloadSpec) -> bool {
    use mlctl_core::local_protocol::EnvSource;
    let asks = |text: &String| text.contains("{metrics_port}");
    spec.metrics_path.is_some()
        || spec.argv.iter().any(asks)
        || spec.env.values().any(|value| matches!(value, EnvSource::Text(text) if asks(text)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::workload::tests::spec;

    #[test]
    fn known_names_are_filled_and_other_braces_left() {
        let mut spec = spec("api");
        spec.files = vec![
            FileSpec { name: "live.json".to_owned(), content: "1".to_owned(), live: true, later: Vec::new() },
            FileSpec {
                name: "fixed.json".to_owned(),
                content: "1".to_owned(),
                live: false,
                later: Vec::new(),
            },
        ];
        let layout = Layout::new("/state");
        let values = Values { layout: &layout, spec: &spec, port: Some(20_001), metrics_port: None };
        let fixed = format!("/state/files/api/{}/fixed.json", Digest::of(b"1").short());
        for (text, expected) in [
            ("127.0.0.1:{port}/{port}", "127.0.0.1:20001/20001"),
            ("{metrics_port}", "{metrics_port}"),
            ("sqlite:{data}/db", "sqlite:/state/data/db"),
            ("{file:live.json}", "/state/files/api/live.json"),
            ("{file:fixed.json}", fixed.as_str()),
            ("{file:other}", "{file:other}"),
            (r#"{{"port":{port}}}"#, r#"{"port":20001}"#),
            ("{{port}} }}{{", "{port} }{"),
            ("{artifact} { } {", "{artifact} { } {"),
            ("é{port}é", "é20001é"),
        ] {
            assert_eq!(values.fill(text), expected, "{text}");
        }
    }
}
