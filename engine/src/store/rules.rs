//! What every store checks alike, apart from how it keeps its data.

use jiff::Timestamp;

use super::{Charge, Fence, StoreError, Write};
use crate::event::{Event, EventKind, Obligation, ObligationChange};

/// The greatest number that is kept: databases have signed 64-bit integers. Greater ones are kept as this one.
pub const GREATEST: u64 = i64::MAX as u64;

/// Refuses writes of an owner that has been replaced, and anything but an append from a process that is no owner.
pub fn check_fence(fence: Fence, epoch: u64, writes: &[Write]) -> Result<(), StoreError> {
    let allowed = match fence {
        Fence::Owner(own) => own == epoch,
        Fence::Foreign => writes.iter().all(|write| matches!(write, Write::Append { .. })),
    };
    if allowed { Ok(()) } else { Err(StoreError::Fenced) }
}

/// The number of the last event after appending `events`, which must follow `last_seq` without a gap.
pub fn check_append(last_seq: u64, after: u64, events: &[Event]) -> Result<u64, StoreError> {
    if after != last_seq {
        return Err(StoreError::Conflict);
    }
    let mut last = last_seq;
    for event in events {
        last += 1;
        if event.seq != last {
            return Err(StoreError::Conflict);
        }
    }
    Ok(last)
}

/// Where a counter stands after `charge`, unless that crosses its limit.
pub fn check_charge(present: u64, charge: &Charge) -> Result<u64, StoreError> {
    let total = present.saturating_add(charge.amount);
    match charge.max {
        Some(max) if total > max => {
            Err(StoreError::Limit { counter: charge.counter.clone(), max, present, amount: charge.amount })
        }
        _ => Ok(total.min(GREATEST)),
    }
}

/// When the obligation `id` was opened: the time of the event that says so, when it is part of the same commit.
pub fn opened_at(writes: &[Write], id: &str, obligation: &Obligation, hold_until: Timestamp) -> Timestamp {
    let appended = writes.iter().flat_map(|write| match write {
        Write::Append { events, .. } => events.as_slice(),
        _ => &[],
    });
    let opening = appended.into_iter().find(|event| {
        matches!(&event.what, EventKind::Obligation { id: of, change: ObligationChange::Opened(_) } if of == id)
    });
    match opening {
        Some(event) => event.at,
        None => jiff::SignedDuration::try_from(obligation.max_hold.0)
            .ok()
            .and_then(|span| hold_until.checked_sub(span).ok())
            .unwrap_or(Timestamp::MIN),
    }
}
