//! What comes from a controller, whatever it is, is read or refused, and never panics.

use millrace_proto::control::signed::{STATE_TYPE, Signed, compact};
use millrace_proto::control::{DesiredState, PublicKey, ToAgent, ToController};
use proptest::prelude::*;

const STATE: &str = r#"{"relay":"r","sequence":42,"expires_at":1790000000,"keys":["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"],
    "contents":[{"id":"gaytemzugu3doobzmfrggzdfmy","sources":["https://o.example/f"],"headers":{"A":"b"},"pin":true,"priority":5}],
    "caps":{"egress":{"total":"2Gbit/s"},"origin":{"grants":[{"origin":"https://o.example","id":"a","bytes":"1GB","until":5}]}}}"#;

/// Everything that reads.
fn read(text: &str) {
    if let Ok(signed) = Signed::parse(text, STATE_TYPE) {
        let _ = DesiredState::from_json(&signed.payload);
    }
    let _ = DesiredState::from_json(text.as_bytes());
    let _ = serde_json::from_str::<ToAgent>(text);
    let _ = serde_json::from_str::<ToController>(text);
}

#[test]
fn a_state_survives_being_written_and_read() {
    let state = DesiredState::from_json(STATE.as_bytes()).expect("a state");
    let written = serde_json::to_vec(&state).expect("JSON");
    assert_eq!(DesiredState::from_json(&written), Ok(state));
}

proptest! {
    #[test]
    fn nothing_panics(text in any::<String>()) {
        read(&text);
    }

    /// A few characters of a good one are replaced, before or after it was signed.
    #[test]
    fn nothing_panics_that_is_nearly_right(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        in_payload in any::<bool>(),
    ) {
        let change = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            for (index, byte) in &changes {
                let index = index.index(bytes.len());
                bytes[index] = *byte;
            }
            bytes
        };
        let sign = |payload: &[u8]| compact(PublicKey([7; 32]), STATE_TYPE, payload, |_| vec![1; 64]);
        match in_payload {
            true => {
                let text = sign(&change(STATE));
                let signed = Signed::parse(&text, STATE_TYPE).expect("signed, whatever it says");
                let _ = DesiredState::from_json(&signed.payload);
            }
            false => read(&String::from_utf8_lossy(&change(&sign(STATE.as_bytes())))),
        }
    }
}
