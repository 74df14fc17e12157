//! Counts the bytes that pass a stream, and keeps its ledger line open for just as long.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::ledger::{Counts, OpenLine};

/// Which count a stream adds to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Layer {
    /// Above TLS.
    Plain,
    /// Below TLS: what TCP carries.
    Cipher,
}

/// A stream that is counted.
pub(super) struct Counted<S> {
    inner: S,
    counts: Arc<Counts>,
    layer: Layer,
    /// Looks at the stream a last time, before it is closed.
    at_close: Option<fn(&S, &Counts)>,
    /// Closed after the stream is, because it stands below it here.
    _line: Option<OpenLine>,
}

impl<S> Counted<S> {
    pub(super) const fn plain(inner: S, counts: Arc<Counts>) -> Self {
        Self {
            inner,
            counts,
            layer: Layer::Plain,
            at_close: None,
            _line: None,
        }
    }

    /// The stream that carries ciphertext; its end is the end of the line.
    pub(super) fn cipher(inner: S, line: OpenLine, at_close: fn(&S, &Counts)) -> Self {
        let counts = line.counts();
        Self {
            inner,
            counts,
            layer: Layer::Cipher,
            at_close: Some(at_close),
            _line: Some(line),
        }
    }

    fn add(&self, out: usize, r#in: usize) {
        match self.layer {
            Layer::Plain => self.counts.add_plain(out as u64, r#in as u64),
            Layer::Cipher => self.counts.add_cipher(out as u64, r#in as u64),
        }
    }
}

impl<S> Drop for Counted<S> {
    fn drop(&mut self) {
        if let Some(at_close) = self.at_close {
            at_close(&self.inner, &self.counts);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        self.add(0, buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(context, buffer))?;
        self.add(written, 0);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write_vectored(context, buffers))?;
        self.add(written, 0);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
