"""The commands ``fastsmtp user``: they keep the users file that `fastsmtp.users` checks logins against."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .users import UsersFileError, list_users, remove_user, set_password

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_NAME = click.argument("name")


@click.group()
def user() -> None:
    """Keep a users file: who may log in."""


@user.command()
@click.option("--scram", is_flag=True, help="Store a key for SCRAM-SHA-256 as well.")
@_FILE
@_NAME
def add(file: Path, name: str, scram: bool) -> None:
    """Add user NAME to FILE, or give it a new password.

    The password is asked for; it is the first line of standard input where that is no terminal. What was stored for
    the user before is replaced, a key for SCRAM too. Clients that can do SCRAM prefer it as soon as one user of the
    file has a key: use --scram for all users or for none.
    """
    try:
        replaced = set_password(file, name, _password(), scram=scram)
    except UsersFileError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{name}: {'replaced' if replaced else 'added'} in {file}")


@user.command()
@_FILE
@_NAME
def remove(file: Path, name: str) -> None:
    """Remove user NAME from FILE."""
    try:
        removed = remove_user(file, name)
    except UsersFileError as error:
        raise click.ClickException(str(error)) from None
    if not removed:
        raise click.ClickException(f"{name}: no such user in {file}; 'fastsmtp user list {file}' shows all")
    click.echo(f"{name}: removed from {file}")


@user.command("list")
@_FILE
def list_(file: Path) -> None:
    """Show the users in FILE, and how their passwords are stored."""
    try:
        users = list_users(file)
    except UsersFileError as error:
        raise click.ClickException(str(error)) from None
    width = max(map(len, users), default=0)
    for name, schemes in users.items():
        click.echo(f"{name:{width}}  {' '.join(schemes)}")


def _password() -> str:
    if sys.stdin.isatty():
        password: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
        return password
    line = sys.stdin.buffer.readline().removesuffix(b"\n").removesuffix(b"\r")
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise click.ClickException("password: must be UTF-8 without NUL") from None
