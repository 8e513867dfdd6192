//! What becomes of an input by chance.

use super::chance::Chance;

/// A place in something so long, and a longer or the same one at most `most` away.
fn range(chance: &mut Chance, length: usize, most: usize) -> (usize, usize) {
    let from = chance.below(length + 1);
    (from, from + chance.below(most.min(length - from) + 1))
}

/// Changes an input in one way.
pub fn mutate(input: &mut Vec<u8>, chance: &mut Chance, words: &[&str], corpus: &[Vec<u8>]) {
    let (from, to) = range(chance, input.len(), 40);
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
            let (start, end) = range(chance, other.len(), 400);
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
