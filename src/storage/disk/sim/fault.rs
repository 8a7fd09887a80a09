//! Calls of a simulated disk that fail, or lie.

use rustix::io::Errno;

/// Which calls a fault counts and strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Every call of the disk and of its files.
    All,
    /// Calls that change nothing: open, list, exists, space, length, read.
    Reads,
    /// Write, truncate, allocate.
    Writes,
    /// Allocate.
    Allocations,
    /// Syncs of a file.
    DataSyncs,
    /// Syncs of a directory.
    DirSyncs,
    /// Create, create a directory, rename, remove.
    Names,
}

/// What happens instead of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// EIO. A write has written nothing; what a sync covered stays in doubt for ever.
    Io,
    /// ENOSPC, as [`Failure::Io`].
    Full,
    /// EDQUOT, as [`Failure::Io`].
    Quota,
    /// EINTR. A read or write struck once goes on by itself, as the contract says.
    Interrupted,
    /// The first half is written, the rest refused with `WriteZero`. Strikes writes only.
    ShortWrite,
    /// The call reports success and does nothing. Strikes what returns nothing.
    Ignored,
}

/// How often a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// At the n-th call.
    Once,
    /// At the n-th call and all later ones.
    Sticky,
}

/// A fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The calls it counts.
    pub calls: Calls,
    /// Which of them it strikes, counted from 1 at the next one.
    pub nth: u64,
    /// What happens.
    pub failure: Failure,
    /// How often.
    pub repeat: Repeat,
}

/// A call, as faults tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Read,
    Write,
    SetLen,
    Allocate,
    DataSync,
    DirSync,
    /// Rename or remove.
    Name,
    /// Create, which has something to return.
    Create,
}

impl Calls {
    fn include(self, call: Call) -> bool {
        match self {
            Self::All => true,
            Self::Reads => call == Call::Read,
            Self::Writes => matches!(call, Call::Write | Call::SetLen | Call::Allocate),
            Self::Allocations => call == Call::Allocate,
            Self::DataSyncs => call == Call::DataSync,
            Self::DirSyncs => call == Call::DirSync,
            Self::Names => matches!(call, Call::Name | Call::Create),
        }
    }
}

/// What a call is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Go,
    Half,
    Ignore,
    Fail(Errno),
}

/// The faults of one disk.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Each with the count of calls still to pass.
    armed: Vec<Fault>,
    pub(super) struck: u64,
}

impl Faults {
    pub(super) fn arm(&mut self, fault: Fault) {
        self.armed.push(fault);
    }

    pub(super) fn clear(&mut self) {
        self.armed.clear();
    }

    pub(super) fn judge(&mut self, call: Call) -> Verdict {
        let mut verdict = Verdict::Go;
        for fault in self.armed.iter_mut().filter(|fault| fault.calls.include(call)) {
            fault.nth = fault.nth.saturating_sub(1);
            if fault.nth == 0 && verdict == Verdict::Go {
                verdict = strike(*fault, call);
                self.struck += 1;
            }
        }
        self.armed.retain(|fault| fault.nth > 0 || fault.repeat == Repeat::Sticky);
        verdict
    }
}

fn strike(fault: Fault, call: Call) -> Verdict {
    match fault.failure {
        Failure::Io => Verdict::Fail(Errno::IO),
        Failure::Full => Verdict::Fail(Errno::NOSPC),
        Failure::Quota => Verdict::Fail(Errno::DQUOT),
        Failure::Interrupted => match (call, fault.repeat) {
            (Call::DataSync | Call::DirSync | Call::Name, _) | (_, Repeat::Sticky) => {
                Verdict::Fail(Errno::INTR)
            }
            _ => Verdict::Go,
        },
        Failure::ShortWrite if call == Call::Write => Verdict::Half,
        Failure::Ignored if !matches!(call, Call::Read | Call::Create) => Verdict::Ignore,
        Failure::ShortWrite | Failure::Ignored => Verdict::Go,
    }
}
