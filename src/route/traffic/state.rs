//! The groups of a rule while the node runs, as operators see and change them.

/// One group as the admin listener shows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GroupState {
    /// Its name.
    pub name: String,
    /// Its origin's.
    pub origin: String,
    /// Its present weight.
    pub weight: u32,
    /// Requests that its origin answered with a status below 500.
    pub answered: u64,
    /// Requests that it could not be asked, or answered with 500 and above.
    pub failed: u64,
}

/// A rule that forwards, as the admin listener shows it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RuleState {
    /// The site.
    pub site: String,
    /// The rule.
    pub rule: String,
    /// Its groups.
    pub groups: Vec<GroupState>,
}

/// Why weights are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeightsError {
    /// No rule of that name forwards.
    #[error("no rule of this name forwards; GET /traffic lists those that do")]
    NoRule,
    /// A name that no group has.
    #[error("the rule has no group `{0}`")]
    NoGroup(String),
    /// Nobody would be asked.
    #[error("all weights would be 0")]
    AllZero,
}
