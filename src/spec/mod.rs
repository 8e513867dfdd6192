pub mod init;
pub mod name;
