//! What `scalr-agent-setup network verify` answers, and the agent reads.

use serde::{Deserialize, Serialize};

/// How the firewall rules of runs are after a verification; one line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Answer {
    /// They were as they have to be.
    Good,
    /// Some were missing or out of date, and are up again.
    Repaired {
        /// The chains that were repaired, for people.
        chains: String,
    },
    /// They are not up.
    Failed {
        /// The reason.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_line_of_json() {
        for (answer, text) in [
            (Answer::Good, r#"{"result":"good"}"#),
            (Answer::Failed { why: "a\nb".to_owned() }, r#"{"result":"failed","why":"a\nb"}"#),
        ] {
            assert_eq!(serde_json::to_string(&answer).unwrap(), text);
            assert_eq!(serde_json::from_str::<Answer>(text).unwrap(), answer);
        }
    }
}
