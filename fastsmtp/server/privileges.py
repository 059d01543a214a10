"""Becoming somebody else for good, once everything is bound that needs privileges."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass


class PrivilegeError(Exception):
    """Who we are to become is unknown, or we may not; the text says which."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who to become.

    Attributes:
        name: of the user, for `initgroups`; None where only a number is known, or the user stays.
    """

    uid: int
    gid: int
    name: str | None


def account(user: str | None, group: str | None) -> Account | None:
    """Finds who to become; None if nobody is named.

    Args:
        user: a name or a number.
        group: likewise; None is the user's own.

    Raises:
        PrivilegeError: there is no such user or group, or a number without a group.
    """
    if user is None and group is None:
        return None
    uid, gid, name = os.getuid(), os.getgid(), None
    if user is not None:
        try:
            found = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
            uid, gid, name = found.pw_uid, found.pw_gid, found.pw_name
        except KeyError:
            if not user.isdecimal():
                raise PrivilegeError(f"user {user}: there is none of this name") from None
            if group is None:
                raise PrivilegeError(f"user {user}: nobody has this number, so its group must be named, too") from None
            uid = int(user)
    return Account(uid, gid if group is None else _gid(group), name)


def _gid(group: str) -> int:
    try:
        return int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise PrivilegeError(f"group {group}: there is none of this name") from None


def become(wanted: Account) -> None:
    """Drop to an account, with its groups and no way back. Never half: what does not succeed in full is an error.

    Raises:
        PrivilegeError: we may not, or some part of what we were is left.
    """
    if (os.getresuid(), os.getresgid()) == ((wanted.uid,) * 3, (wanted.gid,) * 3) and os.geteuid() != 0:
        return  # we are that already, and could not change our groups
    try:
        # Groups first: who has given up being root cannot change them any more.
        if wanted.name is None:
            os.setgroups([wanted.gid])
        else:
            os.initgroups(wanted.name, wanted.gid)
        os.setresgid(wanted.gid, wanted.gid, wanted.gid)
        os.setresuid(wanted.uid, wanted.uid, wanted.uid)
    except OSError as error:
        raise PrivilegeError(f"cannot become uid {wanted.uid}, gid {wanted.gid}: {error.strerror}") from error
    if os.getresuid() != (wanted.uid,) * 3 or os.getresgid() != (wanted.gid,) * 3:
        raise PrivilegeError(f"did not become uid {wanted.uid}, gid {wanted.gid}")
    if wanted.uid != 0 and _can_return():
        raise PrivilegeError("privileges were dropped, but could be had back")


def _can_return() -> bool:
    try:
        os.setuid(0)
    except PermissionError:
        return False
    return True
