//! What becomes of an input by chance.

/// Numbers by chance (SplitMix64): the same seed gives the same numbers.
pub struct Chance(pub u64);

impl Chance {
    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).expect("it is below a usize")
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A place in something so long, and a longer or the same one at most `most` away.
    fn range(&mut self, length: usize, most: usize) -> (usize, usize) {
        let from = self.below(length + 1);
        (from, from + self.below(most.min(length - from) + 1))
    }
}

/// Changes an input in one way.
pub fn mutate(input: &mut Vec<u8>, chance: &mut Chance, words: &[&str], corpus: &[Vec<u8>]) {
    let (from, to) = chance.range(input.len(), 40);
    match chance.below(12) {
        0 if from < input.len() => input[from] ^= 1 << chance.below(8),
        1 if from < input.len() => {
            input[from] = u8::try_from(chance.below(256)).expect("it is below 256");
        }
        2 => drop(input.drain(from..to)),
        3 => input.truncate(from),
        4 => {
            let part = input[from..to].to_vec();
            let most = *chance.one(&[1, 4, 200]);
            let times = 1 + chance.below(most);
            input.splice(to..to, part.repeat(times));
        }
        5 | 6 => drop(input.splice(from..to, chance.one(words).bytes())),
        7 | 8 => drop(input.splice(from..from, chance.one(words).bytes())),
        9 => {
            let other = chance.one(corpus);
            let (start, end) = chance.range(other.len(), 400);
            input.splice(from..to, other[start..end].iter().copied());
        }
        10 => swap_lines(input, chance),
        _ => line_of_another(input, chance, corpus),
    }
}

fn swap_lines(input: &mut Vec<u8>, chance: &mut Chance) {
    let mut lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let (one, other) = (chance.below(lines.len()), chance.below(lines.len()));
    lines.swap(one, other);
    *input = lines.join(&b'\n');
}

fn line_of_another(input: &mut Vec<u8>, chance: &mut Chance, corpus: &[Vec<u8>]) {
    let others: Vec<&[u8]> = chance.one(corpus).split(|byte| *byte == b'\n').collect();
    let line = *chance.one(&others);
    let mut lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    lines.insert(chance.below(lines.len() + 1), line);
    *input = lines.join(&b'\n');
}
