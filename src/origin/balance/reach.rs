//! Who may be asked at all: health, drain, backups, limits.

/// How one address of a server stands for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Asked only while no other is up.
    pub backup: bool,
    /// Takes nothing new.
    pub draining: bool,
    /// Neither ejected nor failing its checks.
    pub up: bool,
    /// Has failed this request already.
    pub tried: bool,
    /// Has as many requests as it may.
    pub full: bool,
}

/// Who may be asked, by place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// One of these, at least one.
    Some(Vec<usize>),
    /// Nobody now, since all that could be asked are at their limit.
    Full,
    /// Nobody: all drain or were tried.
    Exhausted,
}

/// Those that are up; if fewer than `panic` percent are, the backups too; if none of these is, all, since rather any of them
/// than an error for certain. Backups are also asked where the others were tried or are full.
pub fn reach(standings: &[Standing], panic: u8) -> Reach {
    let places = |wanted: &dyn Fn(&Standing) -> bool| -> Vec<usize> {
        let all = standings.iter().enumerate();
        all.filter(|(_, s)| !s.draining && wanted(s)).map(|(place, _)| place).collect()
    };
    let primaries = places(&|s| !s.backup);
    let up = places(&|s| !s.backup && s.up);
    let backups_up = places(&|s| s.backup && s.up);
    let enough = !up.is_empty() && up.len() * 100 >= primaries.len() * usize::from(panic);
    let groups = if enough {
        [up, backups_up]
    } else if !backups_up.is_empty() {
        [[up, backups_up].concat(), Vec::new()]
    } else if primaries.is_empty() {
        [places(&|s| s.backup), Vec::new()]
    } else {
        [primaries, Vec::new()]
    };
    let mut full = false;
    for mut group in groups {
        let is = |place: &usize, wanted: fn(&Standing) -> bool| standings.get(*place).is_some_and(wanted);
        group.retain(|place| is(place, |s| !s.tried));
        let before = group.len();
        group.retain(|place| is(place, |s| !s.full));
        if !group.is_empty() {
            return Reach::Some(group);
        }
        full |= before > 0;
    }
    if full { Reach::Full } else { Reach::Exhausted }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One letter for each: `u`p, `d`own, `b`ackup, `B`ackup that is down; then `t`ried, `f`ull, `x` draining.
    fn standings(text: &str) -> Vec<Standing> {
        let one = |word: &str| Standing {
            backup: word.contains(['b', 'B']),
            up: word.contains(['u', 'b']),
            tried: word.contains('t'),
            full: word.contains('f'),
            draining: word.contains('x'),
        };
        text.split_whitespace().map(one).collect()
    }

    #[test]
    fn who_may_be_asked() {
        let some = |places: &[usize]| Reach::Some(places.to_vec());
        for (text, panic, expected) in [
            ("u u u", 0, some(&[0, 1, 2])),
            ("u d u", 0, some(&[0, 2])),
            ("d d", 0, some(&[0, 1])),
            ("u d d", 50, some(&[0, 1, 2])),
            ("u u d", 50, some(&[0, 1])),
            ("u d d b", 50, some(&[0, 3])),
            ("u b", 0, some(&[0])),
            ("d b", 0, some(&[1])),
            ("d B", 0, some(&[0])),
            ("ut b", 0, some(&[1])),
            ("uf b", 0, some(&[1])),
            ("uf bf", 0, Reach::Full),
            ("uf ut", 0, Reach::Full),
            ("ut ut", 0, Reach::Exhausted),
            ("ut d", 0, Reach::Exhausted),
            ("dt d", 0, some(&[1])),
            ("ux u", 0, some(&[1])),
            ("ux dx", 0, Reach::Exhausted),
            ("ux b", 0, some(&[1])),
            ("B B", 0, some(&[0, 1])),
            ("", 0, Reach::Exhausted),
        ] {
            assert_eq!(reach(&standings(text), panic), expected, "{text} at {panic} %");
        }
    }

    fn any_standing() -> impl Strategy<Value = Standing> {
        any::<[bool; 5]>().prop_map(|[backup, draining, up, tried, full]| Standing {
            backup,
            draining,
            up,
            tried,
            full,
        })
    }

    proptest! {
        #![proptest_config(crate::origin::balance::tests::same_each_time())]

        #[test]
        fn a_server_that_is_out_is_never_asked_while_enough_others_are_up(
            standings in prop::collection::vec(any_standing(), 1..12)
        ) {
            if let Reach::Some(places) = reach(&standings, 0) {
                prop_assert!(!places.is_empty());
                let any_up = standings.iter().any(|s| s.up && !s.draining);
                for place in places {
                    let s = standings[place];
                    prop_assert!(!s.tried && !s.full && !s.draining);
                    prop_assert!(s.up || !any_up);
                }
            }
        }
    }
}
