"""Words that the rules of `vico_lens.vocabulary.phrases` know: closed classes, words that end like another class, no things.

Open classes (nouns, most adjectives) are not listed. Verbs are, for the places where the grammar around a word does not tell: a
list of some 500 that prompts use. A lexicon package was weighed (lemminflect, 2022): of ``waves``, ``plants``, ``drums``,
``swims`` and ``claps`` it says alike that they can be noun or verb, so it does not decide what the rules leave open.
"""

from __future__ import annotations

__all__ = [
    "ADJECTIVES",
    "ADVERBS",
    "AUXILIARIES",
    "BREAKS",
    "CAMERA",
    "COLLECTIONS",
    "COPULAS",
    "DETERMINERS",
    "ED_WORDS",
    "FOREIGN",
    "IDIOMS",
    "ING_ADJECTIVES",
    "ING_HEADS",
    "ING_NOUNS",
    "LY_ADJECTIVES",
    "LY_NOUNS",
    "MANNERS",
    "MEDIUM",
    "MEDIUM_LINKS",
    "NOUNS_TOO",
    "NOUN_PLURALS",
    "PARTICIPLES",
    "PARTICLES",
    "PLACES",
    "PLURALS",
    "PLURAL_DETERMINERS",
    "PREPOSITIONS",
    "PRONOUNS",
    "QUALITIES",
    "RELATIVES",
    "REQUESTS",
    "SINGULAR",
    "SIZES",
    "SUFFIX_NOUNS",
    "S_NOUNS",
    "VERBS",
    "stem_of_s",
]


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


SINGULAR = _set("a an one another each every this that")
PLURAL_DETERMINERS = _set("""
    these those both many several few two three four five six seven eight nine ten eleven twelve dozen dozens twenty thirty
    hundred hundreds thousand thousands multiple various numerous countless some all
""")
DETERMINERS = (
    SINGULAR
    | PLURAL_DETERMINERS
    | _set("""
    the any no my your his her its our their what which whose other more most
""")
)
PARTICLES = _set("""
    up down left right forward forwards backward backwards upward upwards downward downwards leftward leftwards rightward
    rightwards away apart around together sideways still back inward inwards outward outwards clockwise counterclockwise
""")
PREPOSITIONS = _set("""
    in on at by for with from into onto to of off over under above below beneath behind beside besides between among amongst
    across along alongside through throughout during before after against toward towards near around about without within upon
    amid amidst past per via inside outside atop underneath like up down out beyond opposite despite except vs versus
""")
AUXILIARIES = _set("is are was were be been being am has have had do does did can could will would shall should may might must")
MANNERS = _set("hard fast high low straight far")
COPULAS = _set("is are was were been it's he's she's they're")
REQUESTS = _set("generate create make show draw render imagine produce film depict give")
MEDIUM_LINKS = _set("of showing where about featuring depicting")
RELATIVES = _set("who which that")
PRONOUNS = _set("it he she they we i you")
ADVERBS = _set("""
    nearby overhead aside ahead alongside downhill uphill upside outdoors indoors overboard upstairs downstairs underwater
    here there very too also just only again never always often sometimes now soon once twice almost together away apart
    forward backward abroad afar everywhere somewhere anywhere forever mid-air midair mid-flight
""")
BREAKS = (
    PREPOSITIONS
    | AUXILIARIES
    | ADVERBS
    | _set("""
    and or but nor yet so as than then while whilst when where who whom that which if because although though until unless
    since not it he she they them him we you i me us slowly quickly next please it's he's she's they're we're i'm you're
    there's that's here's let's don't doesn't isn't aren't can't won't itself himself herself themselves ourselves yourself
    myself
""")
)
SIZES = _set("small large big tiny huge little giant")
NOUNS_TOO = _set("orange violet light rose lemon peach plum lime olive gold silver bronze square glass turquoise")
ADJECTIVES = SIZES | _set("""
    red green blue yellow orange purple pink brown black white gray grey cyan magenta golden silver violet turquoise beige
    dark light bright pale colorful colourful old new young fast slow tall short long round shiny soft hard hot cold warm wet
    dry fluffy furry cute happy sad angry left right top bottom open closed empty full beautiful futuristic neon realistic
    cinematic lush cozy cosy sunny rainy windy snowy rocky grassy misty foggy stormy cloudy sandy muddy icy dusty rusty shaggy
    hairy spotty stripy curvy crispy juicy busy steep deep shallow thick thin wide narrow heavy sharp smooth rough quiet calm
    wild vibrant vivid elegant graceful ancient modern rustic vintage tropical majestic gentle fresh ripe raw whole asleep
    awake alone alive afraid alert barefoot naked bald blonde blond scarlet crimson maroon navy teal indigo lavender ivory
    amber striped spotted wooden metallic woolen woollen circular rectangular triangular oval tranquil serene surreal abstract
    high low ultra hyper photorealistic hyperrealistic detailed dramatic epic
""")
LY_ADJECTIVES = _set("""
    elderly friendly curly lonely lovely ugly silly wooly woolly hilly holy oily scaly smelly bubbly cuddly prickly wobbly
    chilly lively deadly ghostly heavenly earthly motherly fatherly brotherly sisterly cowardly costly early daily weekly
    yearly likely unlikely jolly burly surly pebbly wrinkly crinkly frilly sparkly stately orderly scholarly homely leisurely
    ghastly
""")
LY_NOUNS = _set("""
    butterfly dragonfly firefly family fly jelly lily belly bully rally ally assembly supply italy july holly housefly gadfly
    monopoly anomaly dolly trolley
""")
SUFFIX_NOUNS = _set("""
    radish dish wish polish finish english rubbish parish varnish relish garnish blemish hummus couscous mattress mistress
    waitress actress princess fortress handful mouthful spoonful armful wireless
""")
MEDIUM = _set("""
    video videos clip clips shot shots photo photograph footage scene scenes view views closeup close-up image picture
    animation film timelapse time-lapse hyperlapse render rendering recording portrait
""")
PLACES = _set("""
    front back middle center centre side sides left right top bottom rear background foreground distance end direction
    directions way midair mid-air
""")
CAMERA = _set("screen frame camera viewer")
QUALITIES = _set("""
    timelapse time-lapse timelapses hyperlapse slow-motion motion quality resolution style detail details focus bokeh 4k 8k hd
    uhd hdr fps cinematography photography masterpiece artstation realism atmosphere mood closeup close-up
""")
COLLECTIONS = _set("""
    group groups pair pairs bunch couple number lot lots set row rows herd flock pack swarm series variety collection pile
    stack handful crowd crowds queue kind kinds type types sort piece pieces part parts
""")
ING_NOUNS = _set("""
    king ring wing thing string spring swing sling evening morning ceiling building painting drawing wedding clothing
    lightning anything something nothing everything sibling darling duckling gosling earring pudding railing crossing landing
""")
ING_HEADS = _set("""
    pool pools room rooms machine machines lot lots mall malls center centre rod rods boat boats board boards block blocks bag
    bags stick sticks track tracks table tables hall halls mat mats pan pans rope cage station stations light lights chair
    chairs
""")
ING_ADJECTIVES = _set("""
    glowing shining sparkling glittering flowing blooming falling burning floating flying flickering running rising setting
    sleeping smiling spinning rotating swirling moving rolling crashing dancing
""")
ED_WORDS = _set("bed red shed sled seed weed reed breed steed speed tweed watershed")
PARTICIPLES = _set("""
    stuck strung made built hung worn held thrown torn broken frozen driven ridden written shown seen taken given caught
    bought brought kept set put cut lit led fed spun spilt split sat stood lain ran swam flew flown fell fallen drove rode ate
    eaten sang sung slept swept woven hidden bent bound drawn laid lost met shot sunk sunken swung told understood wound known
    grown blown sewn shaken beaten bitten chosen forgotten stolen spread hit sent cast shut risen
""")
S_NOUNS = _set("""
    bus lens gas canvas series species iris cactus octopus walrus virus circus chess swiss paris compass atlas tennis
    christmas sports arts crafts goods news glasses sunglasses jeans pants shorts trousers scissors binoculars headphones
    stairs clothes physics mathematics gymnastics athletics mars venus texas hercules times woods always perhaps afterwards
    sideways rhinoceros hippopotamus moss boss gallows
""")
NOUN_PLURALS = _set("""
    plants weights drums waves lights leaves flowers flies trees buildings mountains clouds stars rocks stones hands arms legs
    eyes wings feathers streets roads walls windows doors cars boats ships trains planes clothes shoes books boxes bottles
    cups plates fruits vegetables fields lakes rivers hills islands cliffs bubbles sparks flames shadows petals blossoms
    ripples riders dancers drinks steps ruins towers houses roses horns nets parks ropes rings watches
""")
PLURALS = _set("""
    people children men women geese mice feet teeth oxen sheep deer fish cattle police swine bison salmon trout shrimp squid
    moose firemen policemen snowmen fishermen businessmen grandchildren firefighters wolves goldfish jellyfish starfish
""")
VERBS = _set("""
    move run walk jump fly swim dance play sit stand drive ride fall rise spin roll rotate chase eat drink hold wear talk sing
    sleep wave climb slide float drift cross turn look smile kick throw catch hit bounce crawl race skate surf cook paint draw
    read write burn explode melt grow bloom shake swing push pull follow lie lean hover glide march gallop blow flow drip pour
    stay go come pass enter leave bark meow howl laugh cry hug kiss fight punch shoot wander stroll stare watch wait work
    travel graze hop leap dart dash dig peck nibble nap doze rest lounge bask soar flutter flap buzz hum roar growl purr chirp
    tweet quack neigh moo squeak sneak stalk hunt pounce prowl lurk hide seek sniff lick chew bite gnaw munch feed swallow sip
    gulp taste smell hear listen see gaze peek peer glance wink blink nod bow kneel crouch squat stretch yawn sneeze cough
    snore breathe shiver tremble sway swirl twirl whirl twist curl bend fold unfold open close shut lock knock tap clap snap
    click press squeeze grab grip lift raise lower drop carry bring take give hand toss fling hurl bat swat strike smash crash
    collide break crack shatter burst pop crush tear rip cut slice chop peel stir mix bake fry boil grill roast knead serve
    wash clean sweep mop wipe scrub dust polish iron sew knit weave build fix repair hammer saw drill plow plough plant water
    harvest pick gather collect sort stack pile load unload pack unpack wrap unwrap tie untie hang dangle perch land descend
    ascend dive plunge sink emerge surface splash spray sprinkle squirt leak spill flood freeze thaw evaporate condense glow
    shine sparkle twinkle glitter flicker flash fade dim brighten darken change transform shrink expand swell inflate deflate
    rust rot wilt wither sprout blossom ripen jog sprint trot canter strut waddle hobble limp trek hike parade stomp tiptoe
    skip skid slip trip tumble stumble topple collapse crumble sunbathe sail row paddle pedal cycle bike steer park accelerate
    brake speed zoom cruise taxi orbit circle loop spiral meander wind scurry scamper scuttle slither slink creep inch explore
    search find discover visit meet greet chat argue debate discuss whisper shout scream yell cheer applaud celebrate pray
    meditate study learn teach train practice perform juggle conduct compose record film photograph sketch type text call
    phone sculpt carve decorate arrange share engage compete wrestle box spar fence duel attack defend guard protect rescue
    save help support lead guide escort surround cover embrace cuddle nuzzle groom pet stroke tickle tease scare startle
    frighten flee escape rummage root forage scavenge host don bound stick point show present reveal display sell buy pay shop
    begin start try continue attempt seem appear want billow board devour consume shed mend strum flip overtake arrive depart
    wade head snorkel ski whistle recite narrate pluck patrol set pan tilt reflect chime rumble crackle sizzle simmer gush
    trickle seep soak erupt drizzle loom sprawl lurch wobble totter teeter scoot skitter trundle lumber plod trudge saunter
    amble frolic romp cavort preen hatch yelp bray bleat cackle croak chatter squawk hoot screech shriek giggle chuckle grin
    frown sob weep ponder think enjoy belong contain become mimic conjure examine inspect measure tighten demolish steal cling
    crow honk chant haul busk breach vanish huddle bandage ambush thunder join froth repeat repaint salute
""")
FOREIGN = _set("""
    el la los las un una unos unas del al por para sobre entre y le les des du une et dans sur avec pour qui der das dem ein
    eine einen einem einer und mit auf im ist il lo gli della nel nella che di da em uma um com na os e och sul sulla nello
    dello degli delle alla en ett som med het een yang sebuah seekor
""")


IDIOMS = (
    r"\b(?:(hand|side|face|step|one|arm|back|shoulder|nose) (?:in|by|to) \1|lies? in wait|depth of field"
    r"|close[ -]up(?= (?:of|shot|view|photo|on|video)))\b"
)


def stem_of_s(word: str) -> set[str]:
    """Forms that an -s word may have without its ending: ``flies`` is of ``fly``, ``pushes`` of ``push``.

    >>> sorted(stem_of_s("flies")), sorted(stem_of_s("wrestlers"))
    (['fli', 'flie', 'fly'], ['wrestler'])
    """
    stems = {word[:-1]}
    if word.endswith("es"):
        stems.add(word[:-2])
    if word.endswith("ies"):
        stems.add(f"{word[:-3]}y")
    return stems
