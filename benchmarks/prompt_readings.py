"""Prompts of our own, read by hand: the things that they are about, and where they send them.

Written for this purpose, none taken from a collection. One line a prompt: the prompt, a bar, what was read.
"""

from __future__ import annotations

__all__ = ["DIRECTIONS", "PHRASES"]


def _rows(text: str) -> dict[str, list[str]]:
    pairs = (line.split(" | ") for line in text.strip().splitlines())
    return {prompt: read.split("; ") for prompt, read in pairs}


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
a raccoon steals a sandwich from a picnic table | raccoon; sandwich; picnic table
two otters hold hands while floating on a river | otters; hands; river
the baker dusts flour over fresh loaves | baker; flour; fresh loaves
a chameleon creeps along a vine toward a grasshopper | chameleon; vine; grasshopper
four monks chant inside a candlelit temple | monks; candlelit temple
an ostrich races a motorbike down an empty highway | ostrich; motorbike; empty highway
a hummingbird sips nectar from a purple foxglove | hummingbird; nectar; purple foxglove
three sailors haul a heavy rope on the deck | sailors; heavy rope; deck
a vampire reads a newspaper in a coffin | vampire; newspaper; coffin
a knight kneels before a queen | knight; queen
a toddler stacks wooden blocks near a sleeping cat | toddler; wooden blocks; sleeping cat
a firefighter sprays foam at a burning barn | firefighter; foam; burning barn
five flamingos wade through a shallow lagoon | flamingos; shallow lagoon
lightning strikes a lonely tree on a hill | lightning; lonely tree; hill
a wizard conjures a ball of fire in a cave | wizard; ball; fire; cave
an accordion player busks outside a metro station | accordion player; metro station
a green parrot mimics a pirate | green parrot; pirate
a jogger with headphones passes a bakery | jogger; headphones; bakery
snowflakes settle on a red mailbox | snowflakes; red mailbox
the violinist bows to the audience | violinist; audience
a crocodile yawns beside a muddy river | crocodile; muddy river
two hikers cross a rope bridge above a gorge | hikers; rope bridge; gorge
a paper crane unfolds itself on a desk | paper crane; desk
a sushi chef slices tuna with a sharp knife | sushi chef; tuna; sharp knife
a rooster crows on top of a weather vane | rooster; weather vane
an ant drags a leaf across a stone path | ant; leaf; stone path
six penguins huddle together during a blizzard | penguins; blizzard
a potter shapes clay on a wheel | potter; clay; wheel
a blue whale breaches near a small fishing boat | blue whale; fishing boat
the drummer twirls his sticks | drummer; sticks
a skeleton dances with a scarecrow in a pumpkin field | skeleton; scarecrow; pumpkin field
a ladybug crawls up a blade of grass | ladybug; blade; grass
a nurse bandages a soldier's arm | nurse; soldier's arm
eight rowers power a boat along a foggy canal | rowers; boat; foggy canal
a tailor measures a customer in a dim shop | tailor; customer; dim shop
a goose honks at a cyclist | goose; cyclist
bubbles rise in a glass of champagne | bubbles; glass; champagne
a lemur clings to a bamboo pole | lemur; bamboo pole
an orange cat beside an orange | orange cat; orange
a toy train circles a Christmas tree | toy train; Christmas tree
a magician's assistant vanishes in a puff of smoke | magician's assistant; puff; smoke
a stop-motion clip of clay figures building a castle | clay figures; castle
a wide shot of camels crossing dunes at sunset | camels; dunes; sunset
an astronaut floating in space, stars in the background, 8k, ultra detailed | astronaut; space; stars
an abandoned lighthouse, stormy sea, dark clouds, dramatic mood | abandoned lighthouse; stormy sea; dark clouds
a boy in a striped shirt and a girl with pigtails ride a tandem bicycle | boy; striped shirt; girl; pigtails; tandem bicycle
a pink umbrella to the left of a yellow bench | pink umbrella; yellow bench
a bowl of cherries behind a teapot | bowl; cherries; teapot
a seagull perched on a wooden post | seagull; wooden post
a globe spinning on a shelf | globe; shelf
a deer drinks from a stream while birds sing | deer; stream; birds
a fat cat lounging in a hammock under palm trees | fat cat; hammock; palm trees
a metal spoon stirring tea in a porcelain cup | metal spoon; tea; porcelain cup
the little mermaid brushes her long hair | mermaid; long hair
a zebra and two gazelles drink at a waterhole | zebra; gazelles; waterhole
a pair of scissors cuts ribbon | scissors; ribbon
a gymnast on the balance beam performs a backflip | gymnast; balance beam; backflip
two women chat over coffee in a cafe | women; coffee; cafe
seven swans glide across a mirror-like lake | swans; mirror-like lake
a detective examining footprints with a magnifying glass | detective; footprints; magnifying glass
a bulldozer demolishes a brick wall | bulldozer; brick wall
(a golden dragon:1.4) breathing fire, [castle], <lora:fantasy:0.6> | golden dragon; fire; castle
a happy-looking corgi trots beside its owner | happy-looking corgi; owner
an elderly couple feeds ducks by the pond | elderly couple; ducks; pond
children's drawings come alive on paper | children's drawings; paper
a beekeeper inspects hives in an orchard | beekeeper; hives; orchard
a clownfish hides in an anemone | clownfish; anemone
a mechanic tightens bolts under a car | mechanic; bolts; car
a jaguar ambushes a capybara near the riverbank | jaguar; capybara; riverbank
three nuns play football in a courtyard | nuns; football; courtyard
a mongoose attacks a cobra in tall grass | mongoose; cobra; tall grass
three clowns juggle torches under a circus tent | clowns; torches; circus tent
a hermit crab crawls into an empty shell | hermit crab; empty shell
a welder joins two steel beams | welder; steel beams
two sumo wrestlers collide in a dusty ring | sumo wrestlers; dusty ring
a barista froths milk behind a counter | barista; milk; counter
an iguana basks on a volcanic rock | iguana; volcanic rock
a marching band parades down a boulevard | marching band; boulevard
a toucan nibbles a papaya while a sloth dozes | toucan; papaya; sloth
rain drips from a tin roof onto a barrel | rain; tin roof; barrel
a geisha folds a paper fan | geisha; paper fan
four astronauts float inside a space station | astronauts; space station
the conductor raises his baton | conductor; baton
a bison herd thunders across the prairie | bison herd; prairie
a purple octopus opens a treasure chest | purple octopus; treasure chest
a sailboat, a lighthouse, and a flock of gulls at dawn | sailboat; lighthouse; gulls; dawn
a beagle digs up a bone | beagle; bone
an architect sketches a tower on a tablet | architect; tower; tablet
young lovers kiss under a street lamp | young lovers; street lamp
a cup of steaming tea next to a stack of books | cup; steaming tea; books
five ballerinas twirl in white tutus | ballerinas; white tutus
a grandmother knits socks by the fireplace | grandmother; socks; fireplace
a shepherd guides sheep through a gate | shepherd; sheep; gate
a skateboard made of glass rolls along a corridor | skateboard; glass; corridor
a duck wearing a bowler hat plays the trumpet | duck; bowler hat; trumpet
a swarm of bees surrounds a beekeeper | bees; beekeeper
a koala munches eucalyptus leaves | koala; eucalyptus leaves
an electrician climbs a ladder beside a utility pole | electrician; ladder; utility pole
macro shot of a dew drop on a spider web | dew drop; spider web
a rusty bicycle leans against a brick wall | rusty bicycle; brick wall
a gorilla beats its chest in the jungle | gorilla; chest; jungle
two chess players shake hands over a board | chess players; hands; board
a pirate ship sails through a storm at night | pirate ship; storm; night
a parrot repeats words to a tourist | parrot; words; tourist
candles flicker in a dark chapel | candles; dark chapel
a mole peeks out of a burrow | mole; burrow
a crowd watches fireworks over a harbour | crowd; fireworks; harbour
a diver explores a sunken ship | diver; sunken ship
the moon reflects on a calm lake | moon; calm lake
a hiker lights a campfire | hiker; campfire
""")
"""Prompt to its noun phrases, in the order of the prompt."""

DIRECTIONS: dict[str, list[str]] = _rows("""
a ball rolls left | ball: left
a ball rolls to the left | ball: left
a ball rolls towards the right | ball: right
a ball rolls from left to right | ball: right
a ball rolls left to right | ball: right
a ball rolls from the right to the left | ball: left
a bus drives from the left side to the right side of the street | bus: right; street: none
a bus driving right to left in front of a bank | bus: left; bank: none
a snail creeping leftwards on a wall | snail: left; wall: none
a crab scuttles rightward over the sand | crab: right; sand: none
a cloud drifts to the right side of the picture | cloud: right
a robot moves to the left of a table | robot: none; table: none
a lamp to the left of a chair | lamp: none; chair: none
a goat on the right of a barn | goat: none; barn: none
a goat walking on the left side of a road | goat: none; road: none
a truck is slowing down | truck: none
a truck is speeding up | truck: none
a boy waking up | boy: none
a girl wakes up in a tent | girl: none; tent: none
a street lamp lights up | street lamp: none
two men setting up a tent | men: none; tent: none
a candle lights up a room | candle: none; room: none
a woman picks up a cup | woman: none; cup: none
a boy looks up at the moon | boy: none; moon: none
a girl looking left | girl: none
a man turns left | man: none
a statue facing right | statue: none
a man pointing to the left | man: none
a dog lying down on a rug | dog: none; rug: none
a crowd is cheering up a player | player: none
a building burns down | building: none
a tower breaks down | tower: none
a flower grows up through the snow | flower: none; snow: none
a ball and a cube roll left and right respectively | ball: left; cube: right
a dog and a cat run left and right respectively | dog: left; cat: right
a ball rolls left, then right | ball: none
a ball rolls left and then rolls right | ball: none
a duck swims back and forth | duck: none
an elevator goes up and down | elevator: none
a lantern floats up | lantern: up
a lantern floats upwards into the night | lantern: up; night: none
a balloon rises | balloon: up
a rocket ascending above a desert | rocket: up; desert: none
a monkey climbs a tree | monkey: up; tree: none
a monkey climbs down a tree | monkey: down; tree: none
a monkey climbs into a car | monkey: none; car: none
leaves falling from an oak | leaves: down; oak: none
a stone falls off a cliff | stone: down; cliff: none
a boy falls asleep | boy: none
a couple falls in love | couple: none
a feather drops to the floor | feather: down; floor: none
a waiter drops a plate | waiter: none; plate: down
a diver sinks to the bottom of the sea | diver: down; sea: none
a plane descends towards an airport | plane: down; airport: none
a girl throws a ball to the left | girl: none; ball: left
a boy kicks a can to the right | boy: none; can: right
a ball kicked to the right by a boy | ball: right; boy: none
a puck is hit from left to right | puck: right
a man pushes a cart to the right | man: right; cart: right
a horse pulls a wagon from right to left | horse: left; wagon: left
a crane lifts a container | crane: none; container: up
a crane lowers a container | crane: none; container: down
a flag is raised above a fort | flag: up; fort: none
a red ball moving right and a blue cube moving left | red ball: right; blue cube: left
a fox runs left while a wolf runs right | fox: left; wolf: right
a fox runs left, a wolf runs right | fox: left; wolf: right
a fox and a wolf run to the left | fox: left; wolf: left
a fox and a wolf both moving right | fox: right; wolf: right
a fox and a wolf run in opposite directions | fox: none; wolf: none
a red kite drifts up while a blue kite drifts down | red kite: up; blue kite: down
a tram moving left past a church | tram: left; church: none
a tram passes a church, moving left | tram: left; church: none
a bird flies right over the roof | bird: none; roof: none
a bird flies to the right over the roof | bird: right; roof: none
a car drives right in front of a bus | car: none; bus: none
a frisbee flying right towards a dog | frisbee: right; dog: none
a man standing still beside a river | man: still; river: none
a cat sitting on a sofa | cat: still; sofa: none
a statue stands on a square | statue: still; square: none
a man stands up | man: up
a man sits down | man: none
a stone stays in place | stone: still
a girl raises her right hand | girl: none; right hand: up
a dog with its left paw in plaster walks slowly | dog: none; left paw: none
a boy turns right and walks left | boy: left
a car on the left moves to the right | car: right
a balloon drifting slowly to the left across the sky | balloon: left; sky: none
a fish swimming upward | fish: up
water flows down a hill | water: down; hill: none
rain falls on a roof | rain: down; roof: none
smoke rises from a chimney | smoke: up; chimney: none
the sun is rising over a lake | sun: up; lake: none
the moon slowly sinks behind a hill | moon: down; hill: none
a skier speeds down a slope | skier: down; slope: none
a cyclist rides up a hill | cyclist: up; hill: none
a man rolls up a carpet | man: none; carpet: none
a barrel rolls down the stairs | barrel: down; stairs: none
a drop runs down a window | drop: down; window: none
a train moves from the top to the bottom of the screen | train: down
a bubble moves from bottom to top | bubble: up
a paper plane glides to the left across a room | paper plane: left; room: none
a mouse darts to the right side of a kitchen | mouse: right; kitchen: none
a duck appears. It swims to the left | duck: left
a robot who is walking left, waving | robot: left
a car is not moving left | car: none
a dog jumps up and down | dog: none
a boy throws a kite into the sky | boy: none; kite: up
a girl running left with a dog | girl: left; dog: none
a beetle crawls left along a branch and an ant crawls right along a stone | beetle: left; branch: none; ant: right; stone: none
a worker shutting down a machine | worker: none; machine: none
a kid blowing up a balloon | kid: none; balloon: none
a man who warms up before a run | man: none
a red car enters from the left and drives to the right | red car: right
a ship sails right to left behind an island | ship: left; island: none
a marble rolling from the left edge to the right edge of a table | marble: right; table: none
a swan glides leftward, leaving ripples | swan: left
a ball moves right, bounces off a wall and stops | ball: right; wall: none
an arrow flies from left to right and hits a target | arrow: right; target: none
the leaves turn brown and fall | leaves: down
a bee flies away | bee: none
a child slides down a slide | child: down; slide: none
a hedgehog trundles to the right | hedgehog: right
an otter paddling leftwards across a pond | otter: left; pond: none
a zeppelin hovers and then drifts towards the left | zeppelin: left
a skateboarder rolls from right to left past a mural | skateboarder: left; mural: none
a tractor crosses the field from left to right | tractor: right; field: none
the red lorry heads right while the green van heads left | red lorry: right; green van: left
a marble and a coin slide to the right | marble: right; coin: right
an eagle swoops down on a rabbit | eagle: down; rabbit: none
a curtain rises on a stage | curtain: up; stage: none
a drone takes off from a rooftop | drone: none; rooftop: none
a chef warming up soup | chef: none; soup: none
a boy giving up on a puzzle | boy: none; puzzle: none
traffic slows down near a bridge | traffic: none; bridge: none
a teacher writes on the left of a board | teacher: none; board: none
a snail to the right of a mushroom | snail: none; mushroom: none
a comet streaks from the top left to the bottom right | comet: none
a bucket is lowered into a well | bucket: down; well: none
a girl lifts a puppy | girl: none; puppy: up
a golfer hits a ball to the left | golfer: none; ball: left
a farmer pushes a wheelbarrow to the left | farmer: left; wheelbarrow: left
an acorn falls from a branch | acorn: down; branch: none
snowflakes are drifting down | snowflakes: down
a bubble floating upwards in a glass | bubble: up; glass: none
an escalator carries shoppers up | shoppers: up
a cat jumps down from a shelf | cat: down; shelf: none
a swimmer dives in | swimmer: none
the dancers spin left and right | dancers: none
a toy boat floats left, a paper boat floats right | toy boat: left; paper boat: right
two planes fly in opposite directions | planes: none
a boy and a girl walk left and right respectively | boy: left; girl: right
a lion lies still in the grass | lion: none; grass: none
a guard stands motionless at a gate | guard: still; gate: none
a soldier remains still | soldier: still
a white horse galloping right beside a fence | white horse: none; fence: none
a squirrel scurries up a trunk | squirrel: up; trunk: none
a raindrop slides down a leaf | raindrop: down; leaf: none
the camera pans left over a city | city: none
a hand waves left and right | hand: none
a man looks to the left and walks to the right | man: right
a ghost glides right, a bat flutters left | ghost: right; bat: left
an arrow pointing up | arrow: none
a wall painted from left to right | wall: none
a queue of people moves to the left | people: left
a plane climbing above clouds | plane: up; clouds: none
a lift goes up while another lift goes down | lift: up
a pendulum swings from left to right and back | pendulum: none
the price drops | price: down
a shark swimming toward the right side of the frame | shark: right
a cyclist entering from the right side, riding left | cyclist: left
a girl in a left corner runs right | girl: right
a balloon being carried upward by the wind | balloon: up; wind: none
a leaf blown to the right by the wind | leaf: right; wind: none
a boat that sails leftward | boat: left
a lizard darts right across a wall | lizard: right; wall: none
a monk walks right through a gate | monk: none; gate: none
a bus pulls up at a stop | bus: none; stop: none
a couple breaking up | couple: none
a worker shuts down a machine | worker: none; machine: none
the sun sets behind hills | sun: none; hills: none
a kite soars up into the sky | kite: up; sky: none
a penguin waddles to the right along a shore | penguin: right; shore: none
a gondola gliding from left to right under a bridge | gondola: right; bridge: none
a moth flies towards the left | moth: left
a rider on a black horse gallops left | rider: left
a paper lantern drifting upwards over a lake | paper lantern: up; lake: none
an avalanche rolls down a mountain | avalanche: down; mountain: none
an elevator descends | elevator: down
a spider lowers itself from a ceiling | ceiling: none
a footballer kicks a ball left | footballer: none; ball: left
the yellow ball bounces to the left and the green ball bounces to the right | yellow ball: left; green ball: right
a tortoise crawling right to left on the beach | tortoise: left; beach: none
a hot air balloon floats leftwards above fields | hot air balloon: left; fields: none
a motorcycle speeds to the right | motorcycle: right
a helicopter takes off | helicopter: none
a rocket shoots up into the sky | rocket: up
a man is sitting to the right of a woman | man: still; woman: none
a dog runs to the left of a fence | dog: none; fence: none
a plumber turning off a tap | plumber: none; tap: none
a baby growing up | baby: none
a boy gets up from bed | boy: none; bed: none
a band lines up on a stage | band: none; stage: none
a girl ties up her hair | girl: none; hair: none
an old car breaks down on a road | old car: none; road: none
a wall falls apart | wall: none
the temperature goes up | temperature: up
two trucks, moving left, pass a gas station | trucks: left; gas station: none
a woman who walks right carries a basket | woman: right; basket: none
a sled slides down from the top of a hill | sled: down; hill: none
a snake slithers rightwards | snake: right
a duck dives down | duck: down
a fish jumps up | fish: up
a crab moves sideways | crab: none
a tank rolls forward | tank: none
a bus turns right at a corner | bus: none; corner: none
an archer shoots an arrow to the right | archer: none; arrow: right
the left door opens | left door: none
a robot with a red light on the right walks left | robot: left; red light: none
a deer leaps left over a log | deer: left; log: none
a circle and a square move towards the right and the left respectively | circle: right; square: left
a tumbleweed blows from the left to the right across a road | tumbleweed: right; road: none
leaves are blown to the left | leaves: left
a mouse runs from the right edge of the screen to the left edge | mouse: left
a train goes right, stops, and goes left | train: none
a swing swings left and right | swing: none
a candle standing on a table | candle: still; table: none
a couple is walking right on a beach | couple: right; beach: none
a man falls down | man: down
a bird landing on a branch | bird: none; branch: none
bubbles rising to the top of a tank | bubbles: up; tank: none
a squirrel runs down a tree trunk | squirrel: down; tree trunk: none
a whale swims from left to right, then a boat sails from right to left | whale: right; boat: left
as a car drives to the left, a cat watches | car: left; cat: none
a waiter carries a tray to the left | waiter: left; tray: left
a sailor hoists a flag | sailor: none; flag: up
the clouds move rightward while the moon stays still | clouds: right; moon: still
a butterfly flutters upward from a flower | butterfly: up; flower: none
a rabbit sprints to the left across a meadow | rabbit: left; meadow: none
a steam locomotive chugs from right to left | steam locomotive: left
a leopard slinks towards the right side of a jungle path | leopard: right; jungle path: none
a football rolls leftwards on a lawn | football: left; lawn: none
the kite rises higher and higher | kite: up
a paper plane flies left and a drone flies right | paper plane: left; drone: right
a delivery van drives left to right past a row of shops | delivery van: right; shops: none
an old man strolls left along a pier | old man: left; pier: none
a kayak drifting downstream | kayak: none
a glass falls from a table and breaks | glass: down; table: none
a hawk dives down towards a mouse | hawk: down; mouse: none
a boy on a scooter rides to the right | boy: right; scooter: none
a beach ball is thrown to the left | beach ball: left
a dog drags a stick to the right | dog: right; stick: right
a chef flips a pancake up | chef: none; pancake: up
a woman stands on the right of a man | woman: still; man: none
a cat on a sofa looks up | cat: none; sofa: none
a phone lights up on a desk | phone: none; desk: none
a truck backs up | truck: none
a robot shuts down | robot: none
kids lining up for ice cream | kids: none
a sunflower opens up | sunflower: none
a vase to the left of a clock | vase: none; clock: none
a fish swims in circles | fish: none
a snowball rolls down a hill, growing larger | snowball: down; hill: none
a parade moving from the left to the right | parade: right
a tiger walks to the right, then turns back | tiger: right
a blimp moves slowly leftward over a stadium | blimp: left; stadium: none
a feather floats down onto a pillow | feather: down; pillow: none
a boat goes left while the clouds drift right | boat: left; clouds: right
a metronome ticking left and right | metronome: none
a caterpillar inches up a stem | caterpillar: up; stem: none
a tennis player hits a ball to the right | tennis player: none; ball: right
a ferry crossing a bay from left to right | ferry: right; bay: none
a girl pulls a sled uphill | girl: none; sled: none
a jellyfish ascends through dark water | jellyfish: up; dark water: none
a plane rising into the clouds | plane: up; clouds: none
smoke drifting upward | smoke: up
a cowboy rides right into a saloon | cowboy: none; saloon: none
a dolphin leaps up out of the sea | dolphin: up; sea: none
a skater glides towards the left, a puppy follows | skater: left; puppy: none
a train heading left | train: left
two balls, one rolling left and one rolling right | balls: none
a spider descends on a thread | spider: down; thread: none
a man sitting still on a bench while pigeons walk to the left | man: still; bench: none; pigeons: left
a red bus passes a blue bus moving to the right | blue bus: right
a lamp is on the left, a plant is on the right | lamp: none; plant: none
an otter slides down a muddy bank | otter: down; muddy bank: none
a balloon pops up from a box | balloon: none; box: none
a log floats down a river to the right | log: none; river: none
""")
"""Prompt to things and where each goes: ``left``, ``right``, ``up``, ``down``, ``still`` (it is told to stay), or ``none``."""
