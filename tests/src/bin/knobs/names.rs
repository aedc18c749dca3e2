//! Names that are taken and given back: what a service keeps, and a load test leaves behind.

use std::io::ErrorKind;
use std::path::Path;

use hyper::Method;

/// Takes a name that nobody has, or gives it back.
pub(crate) fn take_name(method: &Method, path: &Path, name: &str) -> (u16, String) {
    let parent = path.parent().unwrap_or(path);
    let (done, status) = match *method {
        Method::POST => {
            (std::fs::create_dir_all(parent).and_then(|()| std::fs::File::create_new(path).map(drop)), 201)
        }
        Method::DELETE => (std::fs::remove_file(path), 204),
        _ => return (405, "POST or DELETE\n".to_owned()),
    };
    match done.map_err(|error| error.kind()) {
        Ok(()) => (status, format!("{{\"name\":\"{name}\"}}\n")),
        Err(ErrorKind::AlreadyExists) => (409, format!("{name} is taken\n")),
        Err(ErrorKind::NotFound) => (404, format!("nobody has {name}\n")),
        Err(kind) => (500, format!("{kind}\n")),
    }
}
