//! One HTTP/1.1 connection at a time: open it, send a request, read the whole answer.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::failure::Failure;
use crate::origin::Origin;

/// An open connection. Dropping it closes it at once, even in the middle of an answer.
pub(crate) struct Link {
    sender: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
    /// True once an answer came over it.
    used: bool,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    /// Connects to the first of the origin's addresses that accepts.
    pub(crate) async fn open(origin: &Origin) -> Result<Self, Failure> {
        let stream =
            TcpStream::connect(origin.addresses.as_slice()).await.map_err(|e| Failure::of_connect(&e))?;
        // Without this, small requests wait for acknowledgements and the latency is Nagle's.
        stream.set_nodelay(true).map_err(|e| Failure::of_connect(&e))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| Failure::of_exchange(&e, false))?;
        let driver = tokio::spawn(async move {
            // How the connection ended is told to whoever waits for an answer.
            let _ = connection.await;
        });
        Ok(Self { sender, driver: driver.abort_handle(), used: false })
    }

    /// Says whether another request can be sent over it.
    pub(crate) async fn is_open(&mut self) -> bool {
        !self.sender.is_closed() && self.sender.ready().await.is_ok()
    }

    /// Sends a request and returns the head of the answer.
    async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Refusal> {
        match self.sender.try_send_request(request).await {
            Ok(response) => Ok(response),
            Err(mut error) => match error.take_message() {
                Some(request) => Err(Refusal::Unsent(Box::new(request))),
                None => Err(Refusal::Failed(Failure::of_exchange(error.error(), self.used))),
            },
        }
    }
}

enum Refusal {
    /// The connection was closed before a byte of the request left: nobody has seen it.
    Unsent(Box<Request<Full<Bytes>>>),
    Failed(Failure),
}

/// Sends a request over `link`, which is replaced by a fresh connection where there is none or it has been closed,
/// and returns the answer with its body still to be read. After a failure the link is gone.
pub(crate) async fn send(
    origin: &Origin,
    link: &mut Option<Link>,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Failure> {
    if let Some(open) = link
        && !open.is_open().await
    {
        *link = None;
    }
    let mut request = request;
    // A second try only for a request that never left; a fresh connection that refuses it is the server's doing.
    for _ in 0..2 {
        let mut open = match link.take() {
            Some(open) => open,
            None => Link::open(origin).await?,
        };
        let was_used = open.used;
        match open.send(request).await {
            Ok(response) => {
                open.used = true;
                *link = Some(open);
                return Ok(response);
            }
            Err(Refusal::Failed(failure)) => return Err(failure),
            Err(Refusal::Unsent(_)) if !was_used => return Err(Failure::Reset),
            Err(Refusal::Unsent(back)) => request = *back,
        }
    }
    Err(Failure::ResetOnReuse)
}

/// Reads the body to its end and drops it.
pub(crate) async fn drain(response: Response<Incoming>) -> Result<(), Failure> {
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame.map_err(|e| Failure::of_body(&e))?;
    }
    Ok(())
}
