//! Serving HTTP on the loopback: connections that can be cut, and an end when nobody holds the server any more.

use std::{
    io::{self, Read},
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Context as _;
use axum::{
    Router,
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
};

use crate::time;

/// How long requests in flight may take once the server was asked to stop.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// Cuts one connection: what was not yet written never will be.
#[derive(Clone, Default)]
pub(crate) struct CutHandle(Arc<AtomicBool>);

impl CutHandle {
    pub(crate) fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_cut(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A listener whose connections carry a [`CutHandle`].
struct CutListener(TcpListener);

/// A connection that fails to write once it was cut, which makes the HTTP layer drop it.
struct CutStream {
    stream: TcpStream,
    cut: CutHandle,
}

impl Listener for CutListener {
    type Io = CutStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (CutStream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok((stream, address)) => {
                    // Answers are small: waiting to fill a packet would only add latency.
                    let _ = stream.set_nodelay(true);
                    return (CutStream { stream, cut: CutHandle::default() }, address);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Connected<IncomingStream<'_, CutListener>> for CutHandle {
    fn connect_info(stream: IncomingStream<'_, CutListener>) -> Self {
        stream.io().cut.clone()
    }
}

impl AsyncRead for CutStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for CutStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.cut.is_cut() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Binds `127.0.0.1:port`; 0 takes a free port.
pub(crate) async fn bind(port: u16) -> anyhow::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .with_context(|| format!("cannot listen on port {port}"))
}

/// Says on stderr, as the access log of the servers is said there, that connections are taken now and on which port.
pub(crate) fn announce(listener: &TcpListener) -> io::Result<()> {
    let port = listener.local_addr()?.port();
    eprintln!("{}", json!({ "ts": time::now(), "evt": "listening", "port": port }));
    Ok(())
}

/// Serves until SIGTERM or SIGINT (requests in flight are finished), or until standard input ends (at once).
pub(crate) async fn until_released(listener: TcpListener, router: Router) -> anyhow::Result<()> {
    exit_on_stdin_end()?;
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::spawn(async {
            tokio::time::sleep(STOP_GRACE).await;
            std::process::exit(0);
        });
    };
    axum::serve(CutListener(listener), router.into_make_service_with_connect_info::<CutHandle>())
        .with_graceful_shutdown(stop)
        .await
        .context("the server failed")
}

/// Ends the process when the holder of the other end of standard input is gone, whatever killed it.
fn exit_on_stdin_end() -> io::Result<()> {
    std::thread::Builder::new().name("stdin".into()).spawn(|| {
        let mut input = io::stdin().lock();
        let mut buffer = [0; 256];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => std::process::exit(0),
                Err(error) if error.kind() != io::ErrorKind::Interrupted => std::process::exit(0),
                _ => {}
            }
        }
    })?;
    Ok(())
}
