use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().skip(1).collect();
    match args.split_first() {
        Some((guard, rest)) if guard == "guard" => {
            let rest = rest.strip_prefix(&["--".into()]).unwrap_or(rest);
            norn::provider::guard::run(rest)
        }
        _ => ExitCode::SUCCESS,
    }
}
