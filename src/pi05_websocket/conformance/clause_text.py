# SPDX-License-Identifier: Apache-2.0
"""The text of every clause, in the order of the sections. Pure; `clauses` reads it.

A paragraph each: id, level, who is bound; what it says; why the kit does not look at it, or how far it does;
what OpenPI's own does instead. An id is never used twice; a clause that is dropped leaves a hole.
"""

from __future__ import annotations

from typing import Final

__all__ = ["TEXT"]

TEXT: Final = """\
W-1 must both
A binary message MUST be exactly one msgpack value, with nothing after it.

W-2 must both
It MUST hold only nil, booleans, integers, floats, text in UTF-8, binary, lists and maps: no extension
types.

W-3 must both
The keys of a map MUST be text, each once, except those of W-4 and W-8, which are binary.

W-4 must both
An array MUST be a map of four entries with the binary keys `__ndarray__` (true), `data`, `dtype`, `shape`.

W-5 should both
These SHOULD come in this order, and everything in msgpack's shortest form: the bytes OpenPI's packer
writes.

W-6 must both
`dtype` MUST be numpy's text of a bool, of an integer or float of 8 to 64 bits, or of fixed-width text or
bytes: `|b1`, `<i2`, `>f4`, `<U12`. Objects, structs, complex numbers, dates and long doubles MUST NOT
travel.
stock: its packer refuses objects, structs and complex numbers only

W-7 must both
`shape` MUST be a list of integers from 0 on, and `data` binary with exactly their product times the item's
size of bytes, in C order.

W-8 must both
A numpy scalar MUST be a map of three entries with the binary keys `__npgeneric__` (true), `data` (the
value), `dtype`; a `float64` is a plain float, a `str_` plain text.

W-9 must both
A reader MUST take every form of W-1 to W-8, whatever the order of an array's entries, 0-d, empty and
big-endian arrays included.
how: of servers; of clients C-7 and C-8 are

W-10 should both
A reader SHOULD refuse an array whose `data` is longer than its shape, and one of objects or structs.
stock: takes the first bytes of data that is too long; takes structs; an array of objects over a peer's
bytes ends the process
how: of servers, with `--rough`; of clients C-18 is

W-11 must both
A reader MUST NOT run code from the wire: no pickle.
unchecked: it cannot be seen from the other end of the wire, short of an attack

W-12 should both
A reader SHOULD bound depth, number of values and size before it allocates for them.
unchecked: memory of another process cannot be seen
stock: bounds nothing

S-1 must server
A server MUST answer a WebSocket upgrade (RFC 6455, version 13) on its path with 101 and the right
`Sec-WebSocket-Accept`; OpenPI's path is any.

S-2 must server
It MUST NOT answer with an extension or subprotocol that was not offered, nor set reserved bits, nor mask.

S-3 should server
It SHOULD decline `permessage-deflate`.

S-4 must server
Its first message MUST be its metadata, unasked, binary, a map.

S-5 must server
After that it MUST NOT send a message that answers no request.

S-6 must server
It MUST answer each request with exactly one binary message, or with an error.

S-7 must server
An answer MUST be a map with `actions`: an array of numbers, `(action_horizon, action_dim)`, neither of them
0, all finite.
stock: sends what its policy returns

S-8 should server
It SHOULD say `server_timing`, a map with `infer_ms`, and `prev_total_ms` from a connection's second answer
on: milliseconds from 0 on.

S-9 must server
Answers of a connection MUST come in the order of its requests, also of requests sent ahead of answers.

S-10 must server
A request that fails, or cannot be read, MUST be answered with an error: one text message that is not empty,
then close code 1011.

S-11 should server
The close reason SHOULD be `Internal server error. Traceback included in previous frame.`

S-12 should server
The error's last line, or the line after the last frame of its traceback, SHOULD name the cause as `Type:
text`.

S-13 must server
A text message MUST be answered as an error.

S-14 must server
An error MUST NOT end another connection, nor keep new ones out.

S-15 must server
It MUST take fragmented messages.

S-16 must server
It MUST answer a ping with a pong of the same payload while no request is being answered.

S-17 should server
It SHOULD answer pings, health checks and upgrades while the policy computes.
stock: answers nobody meanwhile, so that clients that ping give up after 40 s
how: of pings alone

S-18 must server
It MUST answer a close frame with a close frame.

S-19 must server
It MUST serve several connections at a time.

S-20 should server
`GET /healthz` SHOULD be answered with 200 and `OK` and a newline, without a key.

S-21 should server
Another request that is no upgrade SHOULD be answered with 426.

S-22 must server
It MUST ignore request headers that it does not know.

S-23 must server
If it demands a key, it MUST read `Authorization: Api-Key KEY` or `Bearer KEY`, and refuse others before the
upgrade with 401 or 403.
stock: demands none

S-24 must server
It MUST take messages of up to 8 MiB, and close with 1009 at what is too long for it.
how: of the 8 MiB alone

S-25 should server
It SHOULD ignore keys of an observation that its policy does not know.
stock: leaves it to the policy; those of OpenPI ignore them

S-26 must server
A client that vanishes with a request under way MUST NOT harm others.

S-27 must server
It MUST end a connection with a frame that is not masked or of an unknown kind.
how: with `--rough`

S-28 should server
It SHOULD refuse a frame that announces more than it takes at once, before it has come.
stock: waits for it, whatever its length
how: with `--rough`

S-29 must server
A connection that says nothing, half of an upgrade or something else MUST NOT keep others out.
how: with `--rough`

S-30 should server
It SHOULD answer a message that is no map, `[1, 2]` for instance, as an error.
stock: leaves it to the policy

S-31 should server
Before it stops it SHOULD answer what was asked and close with 1001.
unchecked: the kit does not stop other people's servers

C-1 must client
A client MUST ask for the upgrade as RFC 6455, version 13, says: GET, host, a key of 16 bytes.

C-2 must client
It MUST go on when the server agrees to no extension and no subprotocol.

C-3 must client
It MUST NOT send anything before the metadata of that connection has come.

C-4 must client
It MUST take any map as metadata, `{}` and keys that it does not know included.

C-5 must client
A request MUST be one binary message, a map: the observation.

C-6 must client
It MUST mask its frames and set no reserved bits.

C-7 must client
It MUST take an answer whose `actions` are float64 or float32, with keys that it does not know, with and
without timings.

C-8 must client
It MUST take fragmented answers.

C-9 must client
It MUST take answers of up to 8 MiB.

C-10 must client
It MUST answer a ping with a pong of the same payload, also while it waits for an answer.

C-11 should client
It SHOULD NOT give up because its own pings stay unanswered while it waits.
stock: with websockets 15 and later it gives up after 40 s
how: for as long as `--hold` says

C-12 must client
An answer that comes late MUST NOT be taken for that of the next request: it counts, or it connects anew.
how: for as long as `--late` says

C-13 must client
A text message in place of an answer MUST be taken for an error, never for actions.
unchecked: it cannot be seen from the other end of the wire

C-14 must client
After an error and its close it MUST NOT send another request on that connection.

C-15 should client
After an error, a close or a lost connection it SHOULD connect anew.
stock: its client object is dead; the program has to make another

C-16 must client
It MUST answer a close frame with a close frame.

C-17 must client
A key MUST travel in one `Authorization` header, as `Api-Key KEY` or `Bearer KEY`.

C-18 should client
It SHOULD survive an answer that it cannot read: ask again, or connect anew.
stock: its decoder raises; the program has to go on

C-19 must client
It MUST NOT send a message for a new episode, where its dialect has none.

C-20 must client
It MUST NOT execute actions that are not finite, or of another width than the robot's.
unchecked: it cannot be seen from the other end of the wire

RT-1 must server
The metadata's `_rt`, where there is one, MUST have the fields of its table.

RT-2 must client
`_rt` MUST NOT be sent to a server whose metadata on that connection has none of version 1.

RT-3 must client
A request's `_rt` MUST have the fields of its table, within their bounds.

RT-4 must server
A server that announces `_rt` MUST answer a request with it by `_rt` with the fields of its table, `seq` the
request's, `delay` no more than the rows that were sent.

RT-5 must server
It MUST answer a request whose `_rt` is not as its table says with an error.

RT-6 must server
It MUST answer a request without `_rt` as a stock server does.

RT-7 must client
A client MUST take actions whose answer has no `_rt`, or one that cannot be read.

RT-8 must server
A refusal MUST be a text message of the form under Refusals; it is the answer, and the connection stays.

RT-9 should client
A client that sends `_rt` SHOULD go on with the same connection after a refusal.

RT-10 must server
`_rt` MUST NOT reach the policy as a part of the observation.
unchecked: it cannot be seen from the other end of the wire

IM-1 must server
The metadata's `_images`, where there is one, MUST have the fields of its table.

IM-2 must client
An encoded image MUST NOT be sent to a server whose metadata on that connection does not announce it.

IM-3 must client
An encoded image MUST have the four fields of its table, and the file MUST be what they say.

IM-4 must server
A server that announces `_images` MUST take encoded images, and arrays beside them.

IM-5 must server
It MUST answer an encoded image that is not what it says with an error.

D-1 must server
A server MUST answer the message that begins an episode as the dialect's table says, and then requests.

D-2 must server
In a dialect other than `openpi` it MUST NOT announce `_rt` or `_images`.
"""
