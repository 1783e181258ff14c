//! A task's log: masked, limited, kept on disk, sent to the server.

pub(crate) mod end_mark;
pub(crate) mod limit;
pub(crate) mod spool;
pub(crate) mod upload;

use end_mark::EndMark;
use limit::Limiter;
use protocol::redact::Redactor;

/// The steps between a container's output and the log.
pub(crate) struct Filter {
    end: EndMark,
    mask: Redactor,
    limiter: Limiter,
}

impl Filter {
    /// Masks and then limits, so that the limit is one of what is seen.
    pub(crate) fn new(end: EndMark, mask: Redactor, limiter: Limiter) -> Self {
        Self { end, mask, limiter }
    }

    /// Takes more of the output and gives what can go on.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.limiter.push(&self.mask.push(&self.end.push(bytes)))
    }

    /// Whether the container's last word was among what came.
    pub(crate) fn is_whole(&self) -> bool {
        self.end.is_seen()
    }

    /// The output has ended: gives what was kept back.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        let mut masked = self.mask.push(&self.end.finish());
        masked.extend(self.mask.finish());
        let mut rest = self.limiter.push(&masked);
        rest.extend(self.limiter.finish());
        rest
    }
}
