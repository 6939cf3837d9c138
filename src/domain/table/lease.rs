//! How long an instance is kept on a route without being heard of, and who is to be looked at next.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use crate::domain::moment::Moment;

/// Milliseconds, or for ever. Four bytes, as there is one for every instance of every route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lease(u32);

impl Lease {
    /// It never runs out.
    pub(super) const FOREVER: Lease = Lease(u32::MAX);

    /// At most 49 days.
    pub(super) fn of(duration: Duration) -> Lease {
        Lease(u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).min(u32::MAX - 1))
    }

    /// When it runs out if it began at `begin`; `None`: never.
    pub(super) fn end(self, begin: Moment) -> Option<Moment> {
        (self != Lease::FOREVER).then(|| begin + Duration::from_millis(self.0.into()))
    }

    /// In whole seconds, at least one; `None`: for ever.
    pub(super) fn seconds(self) -> Option<NonZeroU32> {
        if self == Lease::FOREVER { None } else { NonZeroU32::new((self.0 / 1000).max(1)) }
    }
}

/// Something that must be looked at when its time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A lease of this instance may have run out.
    Instance(u32),
    /// This route may have been without instances for long enough.
    Route(u32),
}

/// The span of time whose entries are kept together: 2^26 ns (67 ms). They are numbered from the start, for nine years.
pub(super) type Bucket = u32;

/// The bucket of a time that never comes.
pub(super) const NEVER: Bucket = Bucket::MAX;

/// The bucket of a moment.
pub(super) fn bucket(moment: Moment) -> Bucket {
    u32::try_from(moment.as_nanos() >> 26).unwrap_or(NEVER - 1)
}

/// Who is due when, in buckets. Renewing a lease does not touch it: an entry that comes due too early is put off then, so
/// that its cost is per lease, not per refresh.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    buckets: BTreeMap<Bucket, Vec<Due>>,
}

impl Agenda {
    pub(super) fn add(&mut self, bucket: Bucket, due: Due) {
        self.buckets.entry(bucket).or_default().push(due);
    }

    /// Takes out the earliest bucket if it has begun.
    pub(super) fn take(&mut self, now: Moment) -> Option<(Bucket, Vec<Due>)> {
        let first = self.buckets.first_entry()?;
        (*first.key() <= bucket(now)).then(|| first.remove_entry())
    }

    /// When all of the earliest bucket is due.
    pub(super) fn next(&self) -> Option<Moment> {
        let (bucket, _) = self.buckets.first_key_value()?;
        Some(Moment::from_nanos((u64::from(*bucket) + 1) << 26))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_ends_after_its_time_or_never() {
        let begin = Moment::START + SECOND;
        assert_eq!(Lease::of(SECOND).end(begin), Some(begin + SECOND));
        assert_eq!(Lease::FOREVER.end(begin), None);
        assert!(Lease::of(Duration::MAX).end(begin).is_some());
        assert_eq!(Lease::FOREVER.seconds(), None);
        let seconds = |lease| Lease::of(lease).seconds().map(NonZeroU32::get);
        assert_eq!((seconds(Duration::ZERO), seconds(90 * SECOND)), (Some(1), Some(90)));
    }

    #[test]
    fn the_agenda_gives_out_what_is_due_in_order_of_time() {
        let mut agenda = Agenda::default();
        agenda.add(bucket(Moment::START + 3 * SECOND), Due::Instance(3));
        agenda.add(bucket(Moment::START + SECOND), Due::Route(1));
        let next = agenda.next().expect("two entries");
        assert!(next > Moment::START + SECOND && next < Moment::START + 2 * SECOND);
        assert_eq!(agenda.take(Moment::START), None);
        assert_eq!(agenda.take(Moment::START + 2 * SECOND).map(|(_, due)| due), Some(vec![Due::Route(1)]));
        assert_eq!(agenda.take(Moment::START + 2 * SECOND), None);
        assert_eq!(agenda.take(Moment::START + 4 * SECOND).map(|(_, due)| due), Some(vec![Due::Instance(3)]));
        assert_eq!(agenda.next(), None);
    }
}
