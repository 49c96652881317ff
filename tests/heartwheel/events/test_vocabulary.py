"""What words are likely to say: a start, an end, perhaps one of them, or nothing that is known."""

import pytest

from heartwheel.events.vocabulary import Kind, kind_of, perhaps_kind_of

SURE: dict[Kind, str] = {
    "start": "PLAY_START playStarted game.opened SESSION-BEGIN begin launched login logged_in "
    "connected signed-in user_joined app.launch powered_on check_in session_initiated STARTUP "
    "session_open_v2 PLAYSTART SessionStartEvent stream_up com.example.session.started.v1 goOnline",
    "end": "PLAY_OVER game_closed SESSION_STOP logged_out quit disconnect GameOver GameOverEvent "
    "gameover stop exit finished ended game-left leave.room timed_out session_timeout shut_down "
    "shutdown SESSION_COMPLETED call_dropped device.off connection_lost PLAYEND app_crashed",
    "ping": "ping HEARTBEAT keep-alive",
}
PERHAPS: dict[Kind, str] = {
    "start": "resume RESUMED in on up foreground GameLoaded reconnected unpaused",
    "end": "out off over left done completed pause game_paused suspended background killed crash",
}
UNKNOWN = (
    "update over_the_air handover turn_over rollover start_failed login_attempt start_stop weekend "
    "backend append left_click swipe_left openSettings closeMenu level_end quest_completed "
    "friend_left checkout_started not_started will_end up-to-date zoom_out opt_in play_on_tv "
    "playback output disconnect_request purchase_completed 7 ..."
)


@pytest.mark.parametrize(
    ("word", "kind"), [(word, kind) for kind, words in SURE.items() for word in words.split()]
)
def test_word_that_says_it_is_sure(word: str, kind: Kind) -> None:
    """Whatever stands between its parts."""
    assert (kind_of(word, "event"), perhaps_kind_of(word)) == (kind, None)


@pytest.mark.parametrize(
    ("word", "kind"), [(word, kind) for kind, words in PERHAPS.items() for word in words.split()]
)
def test_word_that_may_say_something_else_is_a_perhaps(word: str, kind: Kind) -> None:
    """It counts only where no other does."""
    assert (kind_of(word, "event"), perhaps_kind_of(word)) == (None, kind)


@pytest.mark.parametrize("word", UNKNOWN.split())
def test_word_that_is_only_like_one_says_nothing(word: str) -> None:
    """What did not happen, what is in a session, and what has such letters in it."""
    assert (kind_of(word, "event"), perhaps_kind_of(word)) == (None, None)


def test_letter_of_a_change_event_says_it_in_its_own_field_alone() -> None:
    """A d elsewhere is anything."""
    assert [kind_of(letter, "op") for letter in "crdu"] == ["start", "start", "end", None]
    assert kind_of("d", "event") is None
