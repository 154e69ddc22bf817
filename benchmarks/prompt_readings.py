"""Prompts of our own, read by hand: the things that they are about, and where they send them.

Written for this purpose, none taken from a collection. One line a prompt.
"""

from __future__ import annotations

__all__ = ["DIRECTIONS", "PHRASES"]


def _rows(text: str) -> dict[str, list[str]]:
    pairs = (line.split(" | ") for line in text.strip().splitlines())
    return {prompt: found.split("; ") for prompt, found in pairs}


PHRASES: dict[str, list[str]] = _rows("""
a panda eats bamboo | panda; bamboo
the panda eats bamboo in the forest | panda; bamboo; forest
a cow grazes | cow
a swan swims nearby | swan
two cars collide at a crossing | cars; crossing
a kite stuck in a tree | kite; tree
a child pushes a toy car | child; toy car
a child pushes toy car across the floor | child; toy car; floor
a red sports car drives past a cafe | red sports car; cafe
Times Square at night in the rain | Times Square; night; rain
the artist's studio with a window | artist's studio; window
a goldfish and a starfish next to an octopus | goldfish; starfish; octopus
an orange and a lemon on a plate | orange; lemon; plate
a rose and a violet in a vase | rose; violet; vase
a glowing jellyfish drifts in the deep sea | glowing jellyfish; deep sea
a cute 🐱 and a 🐶 running | cute 🐱; 🐶
house plants on a windowsill | house plants; windowsill
a man lifts weights in a gym | man; weights; gym
ocean waves crash against the rocks | ocean waves; rocks
horse riders gallop through a canyon | horse riders; canyon
a boy plays drums in a garage | boy; drums; garage
a cat in front of a mirror, a dog in the background | cat; mirror; dog
a boat in the middle of a lake | boat; lake
a group of riders crosses a river | riders; river
a pair of swans on a pond | swans; pond
a car on the left side and a bus on the right side of the road | car; bus; road
timelapse of clouds over a mountain range | clouds; mountain range
an elderly woman feeds a friendly dog with curly fur | elderly woman; friendly dog; curly fur
a woman, dressed in red, begins to dance | woman
a surfer trying to catch a wave | surfer; wave
a big, red, shiny apple on a table | shiny apple; table
a cat, neon lights, rainy street, 4k, high resolution | cat; neon lights; rainy street
(red car:1.3) BREAK a blue truck+++ | red car; blue truck
<lora:film:0.8> a knight::2 riding a dragon | knight; dragon
a man wins $10,000 in a casino | man; casino
a dog vs. a cat in a boxing ring | dog; cat; boxing ring
three dogs chase five rabbits across a meadow | dogs; rabbits; meadow
two robots and three astronauts walk on the moon | robots; astronauts; moon
several people dance around a bonfire | people; bonfire
a waiter carefully pours wine into a glass | waiter; wine; glass
a robot that paints portraits in a studio | robot; portraits; studio
the old fisherman who lives by the sea mends a net | old fisherman; sea; net
a girl blowing out candles on a birthday cake | girl; candles; birthday cake
steam rises from a cup of coffee on a wooden table | steam; cup; coffee; wooden table
a golden retriever catches a frisbee mid-air | golden retriever; frisbee
a leaf turns from green to brown | leaf
a candle melts slowly | candle
an ice cube melting in a glass of water | ice cube; glass; water
a balloon inflates until it bursts | balloon
a monkey swings from tree to tree and eats a banana | monkey; tree; tree; banana
a drummer hits a cymbal and a guitarist strums a guitar | drummer; cymbal; guitarist; guitar
two chefs cook pasta in a restaurant kitchen | chefs; pasta; restaurant kitchen
four owls sit on a branch | owls; branch
six tourists wait at a bus stop | tourists; bus stop
a hamster wearing sunglasses drives a tiny car | hamster; sunglasses; car
a bird lands on a statue's head | bird; statue's head
children fly kites on a beach | children; kites; beach
a whale jumps out of the water while a seagull circles above | whale; water; seagull
A lighthouse stands tall on a cliff as waves crash below | lighthouse; cliff; waves
a vending machine next to a parking meter | vending machine; parking meter
a glass bottle falls and shatters on the ground | glass bottle; ground
a hotel swimming pool with palm trees | hotel swimming pool; palm trees
a blue light above a door | blue light; door
smoke billows from a chimney | smoke; chimney
a magician pulls a rabbit out of a hat | magician; rabbit; hat
snow falls on a quiet village | snow; quiet village
a frog sits on a lily pad and a dragonfly hovers overhead | frog; lily pad; dragonfly
a penguin wearing a red scarf slides on ice | penguin; red scarf; ice
a man in a suit shakes hands with a robot | man; suit; hands; robot
a bus stops at a station | bus; station
A beautiful sunset over the ocean, cinematic, high quality, masterpiece | beautiful sunset; ocean
a close-up of a bee on a sunflower | bee; sunflower
drone footage of a castle on a hill | castle; hill
a turtle swims past coral reefs and a shark | turtle; coral reefs; shark
the moon rises behind mountains | moon; mountains
a squirrel holds an acorn | squirrel; acorn
a tractor plows a field at sunrise | tractor; field; sunrise
two knights fight with swords | knights; swords
a goat and a sheep graze on a hillside | goat; sheep; hillside
a boy throws a ball to his dog | boy; ball; dog
a violin leaning against a chair | violin; chair
an old steam train crosses a stone bridge | old steam train; stone bridge
a dancer leaps gracefully across the stage | dancer; stage
five candles burn on a cake | candles; cake
the lights go out in the city | lights; city
a camel carries a rider through the dunes | camel; rider; dunes
a spider spins a web between two branches | spider; web; branches
dolphins leap over the waves | dolphins; waves
a paper plane glides over a crowd | paper plane; crowd
a girl with red hair reads a newspaper | girl; red hair; newspaper
an eagle catches a salmon | eagle; salmon
a baby laughs | baby
a plumber fixes a leaking pipe | plumber; leaking pipe
a lizard sheds its skin | lizard; skin
the chef flips a pancake | chef; pancake
A cyclist overtakes a truck on a highway | cyclist; truck; highway
fireworks explode above a skyline | fireworks; skyline
a herd of elephants walks to a waterhole | elephants; waterhole
two ducks and a goose swim in circles | ducks; goose; circles
a train arrives at the platform and passengers board | train; platform; passengers
two pandas devour bamboo | pandas; bamboo
a group of children sing songs in a church | children; songs; church
The camera pans across a city skyline at dusk | city skyline; dusk
a man and a woman dance in a ballroom | man; woman; ballroom
the mechanic who repairs engines wears gloves | mechanic; engines; gloves
a paper boat floats down a stream, passing rocks and reeds | paper boat; stream; rocks; reeds
a girl runs towards the camera | girl
a ball rolls across the screen | ball
an astronaut plants a flag on the moon | astronaut; flag; moon
a crane lifts a container onto a ship | crane; container; ship
a bear fishes in a river | bear; river
a train speeds through a tunnel | train; tunnel
a blacksmith hammers a glowing sword on an anvil | blacksmith; glowing sword; anvil
raindrops fall on a window | raindrops; window
leaves fall from a tree in autumn | leaves; tree; autumn
flowers bloom in a garden | flowers; garden
a car drives past trees and houses | car; trees; houses
a boy with blue eyes looks at the stars | boy; blue eyes; stars
a woman in a yellow raincoat holds an umbrella under street lights | woman; yellow raincoat; umbrella; street lights
the waves crash on the beach | waves; beach
a colorful parrot perched on a pirate's shoulder | colorful parrot; pirate's shoulder
a soldier salutes, a flag waves in the wind | soldier; flag; wind
an owl and a fox share a blanket by the fire | owl; fox; blanket; fire
a gardener waters plants in a greenhouse | gardener; plants; greenhouse
a kitten plays with a ball of yarn | kitten; ball; yarn
the sun sets over the desert | sun; desert
a snowman melting in the sun | snowman; sun
a chameleon changes color on a branch | chameleon; color; branch
a skateboarder jumps over stairs and lands on a ramp | skateboarder; stairs; ramp
a fisherman rows a boat through fog | fisherman; boat; fog
a teacher writes equations on a blackboard | teacher; equations; blackboard
a hot air balloon rises above green hills | hot air balloon; green hills
a butterfly emerges from a cocoon | butterfly; cocoon
a polar bear swims between icebergs | polar bear; icebergs
a giant robot fights a dinosaur in a ruined city | robot; dinosaur; ruined city
a wolf howls at the moon | wolf; moon
a couple walks hand in hand | couple
A person is playing the piano | person; piano
A woman is being chased by a bear | woman; bear
there is a cat on the roof | cat; roof
close up shot of a man's face with tears | man's face; tears
first person view of a roller coaster | roller coaster
a tall giraffe eating leaves from a tree | tall giraffe; leaves; tree
a slow motion video of a bullet hitting a watermelon | bullet; watermelon
the word HELLO written in sand | word HELLO; sand
a crowd of people cheers in a stadium | people; stadium
a glass of milk falls off a counter | glass; milk; counter
six dancers form a circle on a stage | dancers; circle; stage
3 dogs and 2 cats in a yard | dogs; cats; yard
two toy robots box in a ring | toy robots; ring
a guitarist and a pianist perform a song | guitarist; pianist; song
a tomato on the left of a cucumber | tomato; cucumber
a cup is on top of a book | cup; book
a lamp above a bed | lamp; bed
a fox sleeps inside a hollow log | fox; hollow log
A leaf changes from green to red as days pass | leaf; days
a kangaroo hops past a koala | kangaroo; koala
a seal balances a ball on its nose | seal; ball; nose
an old man feeds pigeons in the square | old man; pigeons; square
a cheetah outruns a gazelle | cheetah; gazelle
""")
"""Prompt to its noun phrases, in order of the prompt."""

DIRECTIONS: dict[str, list[str]] = {}
"""Prompt to ``thing: direction``."""
