//! A fuzz target: the metadata of a stored response.

use bytes::Bytes;
use http::HeaderMap;

use super::entry::Head;
use super::epochs::Mark;
use super::{key, scope};

/// What is read as the head of a stored response is written as one that says the same.
pub(crate) fn stored_head(data: &[u8]) {
    let _ = (key::url(data), key::visible(data));
    assert!(scope::of_response(data, &HeaderMap::new()).len() <= scope::MAX_SCOPES);
    for bytes in [data, &[b"SVM1", data].concat(), &[b"SVM2", data].concat()] {
        let Some(head) = Head::decode(&Bytes::copy_from_slice(bytes), true, &Mark::default()) else { continue };
        let _ = head.declares(1);
        let again = head.encode().ok().and_then(|bytes| Head::decode(&bytes.into(), true, &Mark::default()));
        if let Some(again) = again {
            let (again, first) = (again.to_meta(), head.to_meta());
            assert_eq!(again.headers(), first.headers());
            assert_eq!((again.fresh_until(), again.created()), (first.fresh_until(), first.created()));
        }
    }
}
