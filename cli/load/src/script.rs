//! The requests of a profile, checked and made ready before the first one is sent.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use indexmap::IndexMap;
use mlctl_core::system::units::Expect;
use mlctl_core::system::{Call, LoadProfile};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng as _};

use crate::template::{Pattern, Place, Template, TemplateError, Values};

/// A profile that cannot be sent as it stands.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScriptError {
    #[error("request `{request}`: {reason}")]
    Template { request: String, reason: TemplateError },
    #[error("request `{request}`: `{header}` is not a header that can be sent")]
    Header { request: String, header: String },
    #[error("request `{request}`: `{path}` is not a path that starts with `/`")]
    Path { request: String, path: String },
}

/// All requests of a profile, with their holes.
pub(crate) struct Script {
    pub(crate) setup: Vec<Exchange>,
    pub(crate) mix: Vec<Exchange>,
    pub(crate) teardown: Vec<Exchange>,
}

impl Script {
    /// Checks every request, and that each variable is saved before it is used.
    pub(crate) fn compile(profile: &LoadProfile) -> Result<Self, ScriptError> {
        let once = |request: &mlctl_core::system::LoadRequest, general: &IndexMap<String, String>| {
            Exchange::compile(
                &request.name,
                &request.call,
                request.body.as_ref(),
                [general, &request.headers],
                &request.expect,
                &request.save,
            )
        };
        let none = IndexMap::new();
        // Headers for all may need what the setup only saves.
        let setup =
            profile.setup.iter().map(|request| once(request, &none)).collect::<Result<Vec<_>, _>>()?;
        let teardown = profile
            .teardown
            .iter()
            .map(|request| once(request, &profile.headers))
            .collect::<Result<Vec<_>, _>>()?;
        let mix = (profile.mix.iter())
            .map(|entry| {
                let headers = [&profile.headers, &entry.headers];
                Exchange::compile(
                    &entry.name,
                    &entry.call,
                    entry.body.as_ref(),
                    headers,
                    &entry.expect,
                    &none,
                )
            })
            .collect::<Result<Vec<_>, _>>()?;

        let mut known: Vec<&str> = Vec::new();
        for request in &setup {
            request.check_variables(&known)?;
            known.extend(request.save.keys().map(String::as_str));
        }
        for request in mix.iter().chain(&teardown) {
            request.check_variables(&known)?;
        }
        Ok(Self { setup, mix, teardown })
    }

    /// Returns the names of the secrets it needs.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = &str> {
        let all = self.setup.iter().chain(&self.mix).chain(&self.teardown);
        all.flat_map(Exchange::templates).flat_map(Template::secrets)
    }
}

/// One request with its holes.
pub(crate) struct Exchange {
    pub(crate) name: String,
    pub(crate) expect: Expect,
    /// Variable name to JSON pointer into the answer.
    pub(crate) save: IndexMap<String, String>,
    method: Method,
    /// The path as written.
    target: String,
    path: Template,
    headers: Vec<(HeaderName, Template)>,
    body: Option<Template>,
}

impl Exchange {
    fn compile(
        name: &str,
        call: &Call,
        body: Option<&serde_json::Value>,
        headers: [&IndexMap<String, String>; 2],
        expect: &Expect,
        save: &IndexMap<String, String>,
    ) -> Result<Self, ScriptError> {
        let template = |reason| ScriptError::Template { request: name.to_owned(), reason };
        let wrong_path = || ScriptError::Path { request: name.to_owned(), path: call.path().to_owned() };
        if !call.path().starts_with('/') {
            return Err(wrong_path());
        }
        let mut own: Vec<(HeaderName, Template)> = Vec::new();
        for (header, value) in headers.into_iter().flatten() {
            let wrong = || ScriptError::Header { request: name.to_owned(), header: header.clone() };
            let key: HeaderName = header.parse().map_err(|_| wrong())?;
            let value = Template::parse(value, Place::Plain).map_err(template)?;
            // The request's own header replaces the profile's.
            own.retain(|(earlier, _)| *earlier != key);
            own.push((key, value));
        }
        Ok(Self {
            name: name.to_owned(),
            expect: expect.clone(),
            save: save.clone(),
            method: Method::from_bytes(call.method().as_str().as_bytes()).map_err(|_| wrong_path())?,
            target: call.path().to_owned(),
            path: Template::parse(call.path(), Place::Path).map_err(template)?,
            headers: own,
            body: body.map(Template::of_json).transpose().map_err(template)?,
        })
    }

    fn check_variables(&self, known: &[&str]) -> Result<(), ScriptError> {
        match self.variables().find(|name| !known.contains(name)) {
            Some(name) => Err(ScriptError::Template {
                request: self.name.clone(),
                reason: TemplateError::Variable(name.to_owned()),
            }),
            None => Ok(()),
        }
    }

    /// Returns the names of the variables it needs.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &str> {
        self.templates().flat_map(Template::variables)
    }

    fn templates(&self) -> impl Iterator<Item = &Template> {
        let headers = self.headers.iter().map(|(_, value)| value);
        std::iter::once(&self.path).chain(headers).chain(self.body.as_ref())
    }

    /// Returns method and path as the profile says them, holes and all: no value of a variable is shown.
    pub(crate) fn title(&self, prefix: &str) -> String {
        format!("{} {prefix}{}", self.method, self.target)
    }

    /// Fills in what is the same for the whole run, and proves that the request can be written with it.
    pub(crate) fn bind(
        &self,
        values: &Values,
        prefix: &str,
        host: &str,
        keep_alive: bool,
    ) -> Result<Prepared, ScriptError> {
        let template = |reason| ScriptError::Template { request: self.name.clone(), reason };
        let wrong =
            |header: &str| ScriptError::Header { request: self.name.clone(), header: header.to_owned() };
        let mut fixed = HeaderMap::new();
        fixed.insert(HOST, HeaderValue::from_str(host).map_err(|_| wrong("host"))?);
        fixed.insert(ACCEPT, HeaderValue::from_static("*/*"));
        fixed.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("mlctl-loadtest/", env!("CARGO_PKG_VERSION"))),
        );
        if self.body.is_some() {
            fixed.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if !keep_alive {
            fixed.insert(hyper::header::CONNECTION, HeaderValue::from_static("close"));
        }
        let mut varying = Vec::new();
        for (name, value) in &self.headers {
            let value = value.bind(values).map_err(template)?;
            match value.constant() {
                Some(text) => {
                    let mut text = HeaderValue::from_str(text).map_err(|_| wrong(name.as_str()))?;
                    // Kept out of Debug output: it may be a token.
                    text.set_sensitive(true);
                    fixed.insert(name.clone(), text);
                }
                None => varying.push((name.clone(), value)),
            }
        }
        let prepared = Prepared {
            expect: self.expect.clone(),
            method: self.method.clone(),
            prefix: prefix.to_owned(),
            path: self.path.bind(values).map_err(template)?,
            fixed,
            varying,
            body: self.body.as_ref().map(|body| body.bind(values)).transpose().map_err(template)?,
        };
        // What varies is made of digits and letters, so one good rendering means that all are.
        let random = &mut StdRng::seed_from_u64(0);
        if prepared.request(0, random).is_none() {
            let path = prepared.path.render(0, random);
            return Err(ScriptError::Path { request: self.name.clone(), path });
        }
        Ok(prepared)
    }
}

/// One request, ready to be written over and over.
pub(crate) struct Prepared {
    pub(crate) expect: Expect,
    method: Method,
    prefix: String,
    path: Pattern,
    fixed: HeaderMap,
    varying: Vec<(HeaderName, Pattern)>,
    body: Option<Pattern>,
}

impl Prepared {
    /// Writes the request down; none when a value does not fit its place.
    pub(crate) fn request(&self, sequence: u64, random: &mut dyn RngCore) -> Option<Request<Full<Bytes>>> {
        let target = format!("{}{}", self.prefix, self.path.render(sequence, random));
        let mut headers = self.fixed.clone();
        for (name, value) in &self.varying {
            headers.insert(name.clone(), HeaderValue::from_str(&value.render(sequence, random)).ok()?);
        }
        let body = self.body.as_ref().map(|body| body.render(sequence, random)).unwrap_or_default();
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::try_from(target).ok()?;
        *request.headers_mut() = headers;
        Some(request)
    }
}

#[cfg(test)]
mod tests;
