use millrace_proto::control::signed;
use millrace_proto::control::signed::compact;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::*;
use crate::folder::tests::Scratch;
use crate::identity::Key;

struct Controller(Ed25519KeyPair);

impl Controller {
    fn new(seed: u8) -> Self {
        Controller(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a key"))
    }

    fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().try_into().expect("32 bytes"))
    }

    fn document(&self, sequence: u64, more: Value) -> String {
        let mut state = json!({"relay": "r", "sequence": sequence, "expires_at": 1_000});
        if let (Value::Object(state), Value::Object(more)) = (&mut state, more) {
            state.extend(more);
        }
        let sign = |message: &[u8]| self.0.sign(message).as_ref().to_vec();
        compact(self.public(), STATE_TYPE, state.to_string().as_bytes(), sign)
    }
}

fn open(folder: &Folder, key: PublicKey) -> Documents {
    Key::open_or_make(folder).expect("a key");
    let enrolled = Enrolled { relay: "r".to_owned(), url: "wss://c/".to_owned(), keys: vec![key] };
    Identity::save(folder, &enrolled).expect("saved");
    Documents::open(folder, &Identity::load(folder).expect("enrolled")).expect("documents")
}

#[track_caller]
fn check(documents: &mut Documents, text: &str, expected: RefusalReason) {
    let before = documents.sequence();
    let refusal = documents.accept(text, 500).expect_err("must be refused");
    assert_eq!(refusal.reason, expected, "{refusal:?}");
    assert_eq!(documents.sequence(), before);
}

#[test]
fn what_does_not_count_is_refused() {
    let scratch = Scratch::new();
    let controller = Controller::new(1);
    let mut documents = open(&scratch.0, controller.public());
    let five = controller.document(5, json!({"caps": {"egress": {"total": 7}}}));
    assert_eq!(documents.accept(&five, 500), Ok(5));
    assert_eq!(documents.accept(&five, 5_000), Ok(5), "sent again, it is what is held, however late");
    check(&mut documents, &controller.document(4, json!({})), RefusalReason::Older);
    check(&mut documents, &controller.document(5, json!({})), RefusalReason::Changed);
    check(&mut documents, &controller.document(6, json!({"relay": "other"})), RefusalReason::OtherRelay);
    check(&mut documents, &controller.document(6, json!({"expires_at": 500})), RefusalReason::Expired);
    check(&mut documents, &controller.document(6, json!({"cap": {}})), RefusalReason::Unusable);
    check(&mut documents, &Controller::new(2).document(6, json!({})), RefusalReason::UnknownKey);
    check(&mut documents, "garbage", RefusalReason::Malformed);
    let token = compact(controller.public(), signed::TOKEN_TYPE, b"{}", |_| Vec::new());
    check(&mut documents, &token, RefusalReason::Malformed);
    let none = data_encoding::BASE64URL_NOPAD.encode(br#"{"alg":"none"}"#);
    check(&mut documents, &format!("{none}.{none}."), RefusalReason::Unsigned);
    // One bit of what is signed, one of the signature.
    let good = controller.document(6, json!({}));
    let other = controller.document(7, json!({}));
    let (head, rest) = good.split_once('.').expect("a document");
    let (_, signature) = rest.split_once('.').expect("a signature");
    let body = payload(&other).expect("a payload");
    check(&mut documents, &format!("{head}.{body}.{signature}"), RefusalReason::BadSignature);
    check(&mut documents, &format!("{head}.{body}."), RefusalReason::BadSignature);
    assert_eq!(documents.accept(&good, 500), Ok(6));
}

#[test]
fn the_last_good_state_outlives_the_process() {
    let scratch = Scratch::new();
    let controller = Controller::new(1);
    let mut documents = open(&scratch.0, controller.public());
    assert_eq!(documents.sequence(), None);
    documents.accept(&controller.document(9, json!({})), 500).expect("accepted");
    let mut again = open(&scratch.0, controller.public());
    assert_eq!(again.sequence(), Some(9));
    check(&mut again, &controller.document(8, json!({})), RefusalReason::Older);
    std::fs::write(scratch.0.path(STATE), "{").expect("damaged");
    let identity = Identity::load(&scratch.0).expect("enrolled");
    let error = Documents::open(&scratch.0, &identity).expect_err("damaged").to_string();
    assert!(error.contains("state.json"), "{error}");
}

#[test]
fn keys_are_replaced_by_documents_alone() {
    let scratch = Scratch::new();
    let (old, new) = (Controller::new(1), Controller::new(2));
    let mut documents = open(&scratch.0, old.public());
    let both = json!({"keys": [old.public(), new.public()]});
    documents.accept(&old.document(1, both), 500).expect("accepted");
    documents.accept(&new.document(2, json!({"keys": [new.public()]})), 500).expect("accepted");
    check(&mut documents, &old.document(3, json!({})), RefusalReason::UnknownKey);
    // The enrolment's key does not come back with a restart.
    let mut again = open(&scratch.0, old.public());
    assert_eq!(again.sequence(), Some(2));
    check(&mut again, &old.document(3, json!({})), RefusalReason::UnknownKey);
    again.accept(&new.document(3, json!({})), 500).expect("accepted");
    // It does when the box is enrolled with other keys, and the sequence begins anew.
    let mut anew = open(&scratch.0, Controller::new(3).public());
    assert_eq!(anew.sequence(), None);
    anew.accept(&Controller::new(3).document(1, json!({})), 500).expect("accepted");
}
