"""Sizes, recipients and refused ones come as their weights say."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from loadtest.smtp_users.mix import REALISTIC_SIZES, Mix, Weighted
from loadtest.smtp_users.transactions import Transaction


def test_values_come_by_their_weights() -> None:
    weighted = Weighted({10: 1, 20: 3})
    drawn = Counter(weighted.draw(number / 1000) for number in range(1000))
    assert drawn == {10: 250, 20: 750}


def test_the_ends_of_the_range() -> None:
    weighted = Weighted({1: 1, 2: 1, 3: 1})
    assert [weighted.draw(0.0), weighted.draw(0.9999999999999999)] == [1, 3]


@pytest.mark.parametrize("weights", [{}, {1: 0}, {1: -1, 2: 3}])
def test_what_is_no_distribution(weights: dict[int, float]) -> None:
    with pytest.raises(ValueError, match="no distribution"):
        Weighted(weights)


def test_a_seed_makes_runs_alike() -> None:
    plans = [[user.draw() for _ in range(50)] for user in (Mix(seed=7).plans(), Mix(seed=7).plans())]
    assert plans[0] == plans[1]
    assert len(set(plans[0])) > 3


def test_the_realistic_mix_has_all_its_sizes_sooner_or_later() -> None:
    plans = Mix(seed=1).plans()
    assert {plans.draw().octets for _ in range(5000)} == set(REALISTIC_SIZES)


def test_a_fixed_mix() -> None:
    plans = Mix.fixed(octets=4096, recipients=3).plans()
    assert {(each.octets, each.recipients, each.refused) for each in (plans.draw() for _ in range(20))} == {
        (4096, 3, False)
    }


def test_the_share_of_refused_recipients() -> None:
    plans = Mix(refused_share=0.25, seed=3).plans()
    refused = sum(plans.draw().refused for _ in range(4000))
    assert 800 < refused < 1200


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(ValueError, match="refused_share"):
        Mix(refused_share=share)


def test_what_a_transaction_says() -> None:
    mix = Mix({500: 1}, {2: 1}, refused_share=1.0)
    transaction = Transaction.of(mix.plans().draw(), mix)
    assert transaction.mail(size_offered=True) == b"MAIL FROM:<load@sender.example> SIZE=500\r\n"
    assert transaction.mail(size_offered=False) == b"MAIL FROM:<load@sender.example>\r\n"
    assert transaction.recipients == ("user0@recipient.example", "user1@recipient.example")
    assert transaction.refused == "nobody@refused.example"


def test_few_plans_differ() -> None:
    plans = Mix(seed=5).plans()
    drawn = list(itertools.islice(iter(plans.draw, None), 1000))
    assert len({id(plan) for plan in drawn}) == len(set(drawn))
