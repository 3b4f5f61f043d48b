pub(super) const LONGEST: std::time::Duration = std::time::Duration::from_secs(10);
pub(super) const STAGES: &[super::Stage] = &[];
