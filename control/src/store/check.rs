use super::{Op, StoreError, VALUE_MAX_BYTES, WRITE_MAX_OPS};

/// What can be refused without looking at what is stored.
pub fn check(ops: &[Op]) -> Result<(), StoreError> {
    if ops.is_empty() || ops.len() > WRITE_MAX_OPS {
        return Err(StoreError::OpCount { count: ops.len() });
    }
    for (i, op) in ops.iter().enumerate() {
        if ops[..i].iter().any(|other| other.key().kind() == op.key().kind()) {
            return Err(StoreError::KindTwice { kind: op.key().kind().to_owned() });
        }
        match op {
            Op::Put { key, value } | Op::Renew { key, value } if value.len() > VALUE_MAX_BYTES => {
                return Err(StoreError::ValueTooLarge { key: key.clone(), bytes: value.len() });
            }
            Op::Renew { key, .. } if ops.len() > 1 => return Err(StoreError::RenewNotAlone { key: key.clone() }),
            Op::Put { .. } | Op::Renew { .. } | Op::Delete { .. } => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gantry_kube::Ref;

    use super::*;
    use crate::store::Key;

    #[test]
    fn what_no_store_can_take_is_refused_before_it_is_queued() {
        let put =
            |value: &'static str| Op::Put { key: Key::new("pods", &Ref::new("a", "b")), value: Bytes::from(value) };
        let renew = Op::Renew { key: Key::new("leases", &Ref::new("a", "b")), value: Bytes::new() };
        assert!(matches!(check(&[]), Err(StoreError::OpCount { count: 0 })));
        assert!(matches!(check(&[put("1"), put("2")]), Err(StoreError::KindTwice { .. })));
        assert!(matches!(check(&[put("1"), renew.clone()]), Err(StoreError::RenewNotAlone { .. })));
        assert!(check(&[renew]).is_ok());
        let large =
            Op::Put { key: Key::new("pods", &Ref::new("a", "b")), value: Bytes::from(vec![0; VALUE_MAX_BYTES + 1]) };
        assert!(matches!(check(&[large]), Err(StoreError::ValueTooLarge { .. })));
    }
}
