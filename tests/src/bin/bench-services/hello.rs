//! The bare upstream: hyper and nothing else, one small answer to everything.

use std::convert::Infallible;
use std::process::ExitCode;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// About as long as an item of MercadoLibre is short: what is compared is the way, not the copying.
const BODY: &str = "{\"hello\":\"world\"}";

/// Serves on `PORT` until it is killed.
pub async fn serve() -> ExitCode {
    let port = std::env::var("PORT").ok().and_then(|text| text.parse::<u16>().ok());
    let Some(port) = port else {
        eprintln!("bench-services hello: PORT is not set");
        return ExitCode::from(2);
    };
    let listener = match TcpListener::bind(("127.0.0.1", port)).await {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("bench-services hello: port {port}: {error}");
            return ExitCode::from(2);
        }
    };
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).ok();
        tokio::spawn(async move {
            let service = service_fn(answer);
            // Whoever goes away in the middle is none of our business.
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

async fn answer(_: Request<hyper::body::Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::new(Bytes::from_static(BODY.as_bytes())));
    response
        .headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    Ok(response)
}
