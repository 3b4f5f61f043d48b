pub(super) const STAGES: &[super::Stage] = &[];
