//! How a host's slow facts are written: a list of eleven, and a twelfth for a host that has a door for its guard. One
//! that has none writes what it always wrote, so that hosts of an older version read it. Those cannot read the presence of
//! one that has: all of a mesh is of this version before the first door is made.

use super::statement::{GuardDoor, PresenceFacts};
use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

const PLAIN: usize = 11;

impl Serialize for PresenceFacts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_tuple(PLAIN + usize::from(self.guard.is_some()))?;
        list.serialize_element(&self.name)?;
        list.serialize_element(&self.addresses)?;
        list.serialize_element(&self.cores)?;
        list.serialize_element(&self.memory_mib)?;
        list.serialize_element(&self.tags)?;
        list.serialize_element(&self.version)?;
        list.serialize_element(&self.boot_enabled)?;
        list.serialize_element(&self.allow_none)?;
        list.serialize_element(&self.allow_network)?;
        list.serialize_element(&self.allow_reboot)?;
        list.serialize_element(&self.protected)?;
        if let Some(door) = &self.guard {
            list.serialize_element(door)?;
        }
        list.end()
    }
}

struct Facts;

impl<'de> Visitor<'de> for Facts {
    type Value = PresenceFacts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of a host's facts")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<PresenceFacts, A::Error> {
        fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(list: &mut A, at: usize) -> Result<T, A::Error> {
            list.next_element()?.ok_or_else(|| A::Error::invalid_length(at, &Facts))
        }
        Ok(PresenceFacts {
            name: next(&mut list, 0)?,
            addresses: next(&mut list, 1)?,
            cores: next(&mut list, 2)?,
            memory_mib: next(&mut list, 3)?,
            tags: next(&mut list, 4)?,
            version: next(&mut list, 5)?,
            boot_enabled: next(&mut list, 6)?,
            allow_none: next(&mut list, 7)?,
            allow_network: next(&mut list, 8)?,
            allow_reboot: next(&mut list, 9)?,
            protected: next(&mut list, 10)?,
            guard: list.next_element::<GuardDoor>()?,
        })
    }
}

impl<'de> Deserialize<'de> for PresenceFacts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PresenceFacts, D::Error> {
        deserializer.deserialize_seq(Facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{decode, encode};

    #[test]
    fn without_a_door_the_bytes_are_the_old_ones_and_with_one_they_come_back() {
        let plain = PresenceFacts { name: "a".into(), cores: 2, ..Default::default() };
        let bytes = encode(&plain);
        assert_eq!(bytes[0], 0x80 + PLAIN as u8);
        assert_eq!(decode::<PresenceFacts>(&bytes, 1_000), Ok(plain.clone()));
        let door = GuardDoor { port: 7_422, host_key: [9; 32] };
        let with = PresenceFacts { guard: Some(door), ..plain };
        let bytes = encode(&with);
        assert_eq!(bytes[0], 0x80 + PLAIN as u8 + 1);
        assert_eq!(decode::<PresenceFacts>(&bytes, 1_000), Ok(with));
        // Shorter, longer, or with a door that is none: refused.
        let mut short = bytes.clone();
        short[0] -= 2;
        assert!(decode::<PresenceFacts>(&short, 1_000).is_err());
        let mut long = bytes.clone();
        long[0] += 1;
        long.push(0);
        assert!(decode::<PresenceFacts>(&long, 1_000).is_err());
        let mut none = encode(&PresenceFacts::default());
        none[0] += 1;
        none.push(0xf6);
        assert!(decode::<PresenceFacts>(&none, 1_000).is_err(), "null is another way to say nothing");
    }
}
