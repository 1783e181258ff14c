//! What time it is, so that tests can say it themselves.

use jiff::Timestamp;

/// Milliseconds since 1970 (UTC), as the database keeps times.
pub(crate) type Millis = i64;

/// A source of the time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    #[cfg(test)]
    set: Option<std::sync::Arc<std::sync::atomic::AtomicI64>>,
}

impl Clock {
    /// The time now.
    pub(crate) fn now(&self) -> Millis {
        #[cfg(test)]
        if let Some(set) = &self.set {
            return set.load(std::sync::atomic::Ordering::SeqCst);
        }
        Timestamp::now().as_millisecond()
    }
}

/// `time` as JSON carries it: RFC 3339, UTC.
pub(crate) fn rfc3339(time: Millis) -> String {
    Timestamp::from_millisecond(time).map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
impl Clock {
    /// A clock that stands until it is advanced.
    pub(crate) fn standing() -> Self {
        let start = std::sync::atomic::AtomicI64::new(1_700_000_000_000);
        Self { set: Some(std::sync::Arc::new(start)) }
    }

    /// Advances a standing clock.
    pub(crate) fn advance(&self, time: std::time::Duration) {
        let millis = i64::try_from(time.as_millis()).unwrap();
        self.set.as_ref().unwrap().fetch_add(millis, std::sync::atomic::Ordering::SeqCst);
    }

    /// Sets a standing clock back.
    pub(crate) fn set_back(&self, time: std::time::Duration) {
        let millis = i64::try_from(time.as_millis()).unwrap();
        self.set.as_ref().unwrap().fetch_sub(millis, std::sync::atomic::Ordering::SeqCst);
    }
}
