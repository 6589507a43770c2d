//! What is known of one connection: whether the kernel copies what is sent to it without a copy.

/// What the kernel reported of one send when it had let go of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// The bytes went out from where they lay.
    Uncopied,
    /// The kernel copied some or all of them.
    Copied,
    /// The kernel would not do it.
    Refused,
}

/// How far one connection has been tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trial {
    /// Nothing was sent so.
    Untried,
    /// The first send is on its way. What follows meanwhile is copied, so that one is all that a trial can cost.
    Trying,
    /// All reports so far said that nothing was copied.
    Honoured,
    /// Once copied or refused: from here on copied at once.
    Copied,
}

impl Trial {
    pub(super) fn may_send(self) -> bool {
        matches!(self, Trial::Untried | Trial::Honoured)
    }

    /// A send begins.
    pub(super) fn begun(self) -> Self {
        match self {
            Trial::Untried | Trial::Trying => Trial::Trying,
            Trial::Honoured => Trial::Honoured,
            Trial::Copied => Trial::Copied,
        }
    }

    /// A send has ended. None where it sent nothing, of which the kernel says that it was copied, and which says nothing.
    pub(super) fn reported(self, report: Option<Report>) -> Self {
        match (self, report) {
            (Trial::Copied, _) | (_, Some(Report::Copied | Report::Refused)) => Trial::Copied,
            (_, Some(Report::Uncopied)) => Trial::Honoured,
            (Trial::Trying, None) => Trial::Untried,
            (trial, None) => trial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reports: &[Option<Report>], expected: Trial) {
        let trial = reports.iter().fold(Trial::Untried.begun(), |trial, report| trial.reported(*report));
        assert_eq!(trial, expected, "{reports:?}");
    }

    #[test]
    fn the_first_copy_is_the_end_of_it() {
        check(&[], Trial::Trying);
        check(&[Some(Report::Copied)], Trial::Copied);
        check(&[Some(Report::Refused)], Trial::Copied);
        check(&[Some(Report::Uncopied)], Trial::Honoured);
        check(&[Some(Report::Uncopied), Some(Report::Copied)], Trial::Copied);
        // Sends that were under way when the first was copied come to their ends one by one.
        check(&[Some(Report::Uncopied), Some(Report::Copied), Some(Report::Uncopied)], Trial::Copied);
    }

    #[test]
    fn a_send_that_sent_nothing_proves_nothing() {
        check(&[None], Trial::Untried);
        check(&[Some(Report::Uncopied), None], Trial::Honoured);
        check(&[Some(Report::Copied), None], Trial::Copied);
    }

    #[test]
    fn one_send_at_a_time_until_the_verdict() {
        assert!(Trial::Untried.may_send());
        assert!(!Trial::Untried.begun().may_send());
        assert!(Trial::Honoured.begun().may_send());
        assert!(!Trial::Copied.begun().may_send());
    }
}
